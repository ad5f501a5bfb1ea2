// What all update rules share: hyperparameters, step state, exponential averages.
#pragma once

#include <limits>

#include "base/math.h"
#include "base/type_list.h"

namespace thalweg {

// One row of the block that Python fills before each step; fields that a rule does not use are 0.
struct Hyper {
  double lr, weight_decay, decoupled, beta1, beta2, eps, momentum, dampening, form, rho, lr_decay,
      momentum_decay, eps_inside, eta_minus, eta_plus, step_min, step_max, maximize, trust, rule_decay;
};
inline constexpr const char* kHyperFields[] = {
    "lr",        "weight_decay", "decoupled", "beta1",    "beta2",          "eps",        "momentum",
    "dampening", "form",         "rho",       "lr_decay", "momentum_decay", "eps_inside", "eta_minus",
    "eta_plus",  "step_min",     "step_max",  "maximize", "trust",          "rule_decay"};

// What a tensor remembers from step to step beside its element-wise states. Starts as {0, 1, 1, 1}.
struct StepState {
  double step, beta1_power, beta2_power, mu_product;

  bool operator==(const StepState&) const = default;
};
inline constexpr const char* kStepFields[] = {"step", "beta1_power", "beta2_power", "mu_product"};

// Which coefficients `Momentum` gets; Hyper::form.
enum class MomentumForm : int { torch, nesterov, velocity, average, interim };

inline constexpr int kMaxStates = 3;

// What a step does around every rule.
struct OptimStageOptions {
  double grad_scale = 1, clip_value = std::numeric_limits<double>::infinity(), ema_decay = 1;
};

inline namespace THALWEG_ISA {

// Advances a tensor's step state; every rule's prepare() runs after it.
THALWEG_RULE void advance(const Hyper& h, StepState& s) {
  s.step += 1;
  s.beta1_power *= h.beta1;
  s.beta2_power *= h.beta2;
}

// What gradients are multiplied by so that their norm is at most max_norm; PyTorch's clip_grad_norm_, its
// 1e-6 included. A norm that is NaN goes through.
THALWEG_RULE double clip_factor(double norm, double max_norm) {
  const double clip = max_norm / (norm + 1e-6);
  return clip >= 1 ? 1 : clip;
}

// Exponential averages of g and g², which the whole Adam family shares.
template <class T>
struct Moments {
  T beta1, one_minus_beta1, beta2, one_minus_beta2;

  THALWEG_RULE void prepare(const Hyper& h) {
    beta1 = static_cast<T>(h.beta1), one_minus_beta1 = static_cast<T>(1 - h.beta1);
    beta2 = static_cast<T>(h.beta2), one_minus_beta2 = static_cast<T>(1 - h.beta2);
  }
  THALWEG_RULE T first(T m, T g) const { return beta1 * m + one_minus_beta1 * g; }
  THALWEG_RULE T second(T v, T g) const { return beta2 * v + one_minus_beta2 * (g * g); }
};

}  // namespace THALWEG_ISA
}  // namespace thalweg
