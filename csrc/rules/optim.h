// Update rules: the mathematics of every optimizer, once, for every ISA and device.
//
// A rule is a struct of scalars. `prepare` computes them once per tensor and step, in double, from
// the hyperparameters and the tensor's step state (running products instead of powers, so that a
// device or a replayed plan can do it too). The call operator updates one element: parameter p,
// gradient g (already scaled, clipped and decayed by the loop), states s. It is branch-free, so that
// the loop around it vectorises.
//
// A rule that needs norms of whole tensors (LARS, LAMB) has a norm phase: `measure` visits every
// element first, may update states, and returns the value whose norm over the tensor is wanted;
// `adapt` gets the norms of the parameter and of these values; the call operator runs after it.
//
// `nonnegative`, a bit for every state that has no sign, says that a rule bears states of 8 bits
// (rules/quantize.h).
//
// To add an optimizer: a struct here, its name in OptimRules below, a class in optim/rules.py, a row
// in tests/optim_table.py. Formulas and sources: docs/adding-an-optimizer.md and optim/rules.py.
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

// Robbins & Monro 1951: p -= lr*g.
template <class T>
struct Sgd {
  static constexpr const char* name = "sgd";
  static constexpr StateNames<0> states{};
  static constexpr unsigned nonnegative = 0;
  T lr;

  THALWEG_RULE void prepare(const Hyper& h, StepState&) { lr = static_cast<T>(h.lr); }
  THALWEG_RULE void operator()(T& p, T g, T*) const { p -= lr * g; }
};

// All momentum forms (Polyak 1964; Nesterov 1983; Goodfellow et al. 2016, Alg. 8.2 and 8.3; Duda,
// Hart & Stork 2000) are v = a*v + b*g ; p -= c*g + d*v with other coefficients.
template <class T>
struct Momentum {
  static constexpr const char* name = "momentum";
  static constexpr StateNames<1> states{"momentum_buffer"};
  static constexpr unsigned nonnegative = 0;
  T a, b, c, d;

  THALWEG_RULE void prepare(const Hyper& h, StepState& s) {
    const double mu = h.momentum, lr = h.lr;
    const auto set = [this](double a_, double b_, double c_, double d_) {
      a = static_cast<T>(a_), b = static_cast<T>(b_), c = static_cast<T>(c_), d = static_cast<T>(d_);
    };
    switch (static_cast<MomentumForm>(static_cast<int>(h.form))) {
      // v starts as g itself: PyTorch does not dampen the first step.
      case MomentumForm::torch:
        set(mu, s.step == 1 ? 1 : 1 - h.dampening, 0, lr);
        break;
      case MomentumForm::nesterov:
        set(mu, 1, lr, lr * mu);
        break;
      case MomentumForm::velocity:
        set(mu, -lr, 0, -1);
        break;
      case MomentumForm::average:
        set(mu, -(1 - mu) * lr, 0, -1);
        break;
      // p rests at the look-ahead point P = p + mu*v; with v' = mu*v - lr*g the next one is
      // P' = P - mu*v + (1+mu)*v' = P + mu*v' - lr*g.
      case MomentumForm::interim:
        set(mu, -lr, lr, -mu);
        break;
    }
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    s[0] = a * s[0] + b * g;
    p -= c * g + d * s[0];
  }
};

// Duchi, Hazan & Singer 2011.
template <class T>
struct Adagrad {
  static constexpr const char* name = "adagrad";
  static constexpr StateNames<1> states{"sum"};
  static constexpr unsigned nonnegative = 0b1;
  T lr, eps;

  THALWEG_RULE void prepare(const Hyper& h, StepState& s) {
    lr = static_cast<T>(h.lr / (1 + (s.step - 1) * h.lr_decay));
    eps = static_cast<T>(h.eps);
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    s[0] += g * g;
    p -= lr * g / (sqrt(s[0]) + eps);
  }
};

// Zeiler 2012.
template <class T>
struct Adadelta {
  static constexpr const char* name = "adadelta";
  static constexpr StateNames<2> states{"square_avg", "acc_delta"};
  T lr, rho, one_minus_rho, eps;

  THALWEG_RULE void prepare(const Hyper& h, StepState&) {
    lr = static_cast<T>(h.lr), rho = static_cast<T>(h.rho), eps = static_cast<T>(h.eps);
    one_minus_rho = static_cast<T>(1 - h.rho);
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    s[0] = rho * s[0] + one_minus_rho * (g * g);
    const T delta = sqrt(s[1] + eps) / sqrt(s[0] + eps) * g;
    s[1] = rho * s[1] + one_minus_rho * (delta * delta);
    p -= lr * delta;
  }
};

// Hinton 2012; eps inside the root: Goodfellow et al. 2016, Alg. 8.5; centered: Graves 2013. States
// beyond the first exist only in the variants that need them, since each costs 8 bytes a parameter.
template <class T, bool kCentered, bool kMomentum>
struct RmspropVariant {
  static constexpr int kBuffer = kCentered ? 2 : 1;  // where the momentum buffer stands
  static constexpr unsigned nonnegative = 0b1;
  T lr, rho, one_minus_rho, eps_inside, eps_outside, momentum;

  THALWEG_RULE void prepare(const Hyper& h, StepState&) {
    lr = static_cast<T>(h.lr), rho = static_cast<T>(h.rho), momentum = static_cast<T>(h.momentum);
    one_minus_rho = static_cast<T>(1 - h.rho);
    eps_inside = static_cast<T>(h.eps_inside != 0 ? h.eps : 0);
    eps_outside = static_cast<T>(h.eps_inside != 0 ? 0 : h.eps);
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    s[0] = rho * s[0] + one_minus_rho * (g * g);
    T variance = s[0];
    if constexpr (kCentered) {
      s[1] = rho * s[1] + one_minus_rho * g;
      variance = s[0] - s[1] * s[1];
    }
    const T step = g / (sqrt(variance + eps_inside) + eps_outside);
    if constexpr (kMomentum) {
      s[kBuffer] = momentum * s[kBuffer] + step;
      p -= lr * s[kBuffer];
    } else {
      p -= lr * step;
    }
  }
};
template <class T>
struct Rmsprop : RmspropVariant<T, false, false> {
  static constexpr const char* name = "rmsprop";
  static constexpr StateNames<1> states{"square_avg"};
};
template <class T>
struct RmspropMomentum : RmspropVariant<T, false, true> {
  static constexpr const char* name = "rmsprop_momentum";
  static constexpr StateNames<2> states{"square_avg", "momentum_buffer"};
};
template <class T>
struct RmspropCentered : RmspropVariant<T, true, false> {
  static constexpr const char* name = "rmsprop_centered";
  static constexpr StateNames<2> states{"square_avg", "grad_avg"};
};
template <class T>
struct RmspropCenteredMomentum : RmspropVariant<T, true, true> {
  static constexpr const char* name = "rmsprop_centered_momentum";
  static constexpr StateNames<3> states{"square_avg", "grad_avg", "momentum_buffer"};
};

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

// Kingma & Ba 2015, Alg. 1; the bias corrections are folded into two scalars.
template <class T>
struct Adam {
  static constexpr const char* name = "adam";
  static constexpr StateNames<2> states{"exp_avg", "exp_avg_sq"};
  static constexpr unsigned nonnegative = 0b10;
  Moments<T> moments;
  T lr, root, eps;

  THALWEG_RULE void prepare(const Hyper& h, StepState& s) {
    moments.prepare(h);
    lr = static_cast<T>(h.lr / (1 - s.beta1_power));
    root = static_cast<T>(1 / sqrt(1 - s.beta2_power));
    eps = static_cast<T>(h.eps);
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    s[0] = moments.first(s[0], g);
    s[1] = moments.second(s[1], g);
    p -= lr * s[0] / (sqrt(s[1]) * root + eps);
  }
};

// Reddi, Kale & Kumar 2018: the largest second moment so far, before correction.
template <class T>
struct AdamAmsgrad : Adam<T> {
  static constexpr const char* name = "adam_amsgrad";
  static constexpr StateNames<3> states{"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};
  static constexpr unsigned nonnegative = 0b110;

  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    s[0] = this->moments.first(s[0], g);
    s[1] = this->moments.second(s[1], g);
    s[2] = s[2] > s[1] ? s[2] : s[1];
    p -= this->lr * s[0] / (sqrt(s[2]) * this->root + this->eps);
  }
};

// Kingma & Ba 2015, Alg. 2.
template <class T>
struct Adamax {
  static constexpr const char* name = "adamax";
  static constexpr StateNames<2> states{"exp_avg", "exp_inf"};
  Moments<T> moments;
  T lr, eps;

  THALWEG_RULE void prepare(const Hyper& h, StepState& s) {
    moments.prepare(h);
    lr = static_cast<T>(h.lr / (1 - s.beta1_power));
    eps = static_cast<T>(h.eps);
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    s[0] = moments.first(s[0], g);
    const T decayed = moments.beta2 * s[1], magnitude = (g < 0 ? -g : g) + eps;
    s[1] = decayed > magnitude ? decayed : magnitude;
    p -= lr * s[0] / s[1];
  }
};

// Dozat 2016, in PyTorch's form.
template <class T>
struct Nadam {
  static constexpr const char* name = "nadam";
  static constexpr StateNames<2> states{"exp_avg", "exp_avg_sq"};
  Moments<T> moments;
  T lr_m, lr_g, root, eps;

  THALWEG_RULE static double mu(const Hyper& h, double step) {
    return h.beta1 * (1 - 0.5 * exp(step * h.momentum_decay * -0.040821994520255166));  // 0.96^…
  }
  THALWEG_RULE void prepare(const Hyper& h, StepState& s) {
    moments.prepare(h);
    const double mu_now = mu(h, s.step), mu_next = mu(h, s.step + 1);
    s.mu_product *= mu_now;
    lr_m = static_cast<T>(h.lr * mu_next / (1 - s.mu_product * mu_next));
    lr_g = static_cast<T>(h.lr * (1 - mu_now) / (1 - s.mu_product));
    root = static_cast<T>(1 / sqrt(1 - s.beta2_power));
    eps = static_cast<T>(h.eps);
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    s[0] = moments.first(s[0], g);
    s[1] = moments.second(s[1], g);
    p -= (lr_m * s[0] + lr_g * g) / (sqrt(s[1]) * root + eps);
  }
};

// Liu 2020. While the variance of the adaptive rate is intractable (rho <= 5) the step is plain.
template <class T>
struct Radam {
  static constexpr const char* name = "radam";
  static constexpr StateNames<2> states{"exp_avg", "exp_avg_sq"};
  Moments<T> moments;
  T plain, adaptive, eps;  // one of the two rates is 0

  THALWEG_RULE void prepare(const Hyper& h, StepState& s) {
    moments.prepare(h);
    const double correction2 = 1 - s.beta2_power;
    const double limit = 2 / (1 - h.beta2) - 1;
    const double rho = limit - 2 * s.step * s.beta2_power / correction2;
    const double lr = h.lr / (1 - s.beta1_power);
    const double rectifier = sqrt((rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho));
    plain = static_cast<T>(rho > 5 ? 0 : lr);
    adaptive = static_cast<T>(rho > 5 ? lr * rectifier * sqrt(correction2) : 0);
    eps = static_cast<T>(h.eps);
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    s[0] = moments.first(s[0], g);
    s[1] = moments.second(s[1], g);
    p -= s[0] * (adaptive > 0 ? adaptive / (sqrt(s[1]) + eps) : plain);
  }
};

// Riedmiller & Braun 1993, without backtracking.
template <class T>
struct Rprop {
  static constexpr const char* name = "rprop";
  static constexpr StateNames<2> states{"prev", "step_size"};
  T eta_minus, eta_plus, step_min, step_max;

  THALWEG_RULE void prepare(const Hyper& h, StepState&) {
    eta_minus = static_cast<T>(h.eta_minus), eta_plus = static_cast<T>(h.eta_plus);
    step_min = static_cast<T>(h.step_min), step_max = static_cast<T>(h.step_max);
  }
  THALWEG_RULE static T sign(T x) {  // NaN stays
    const T negative = x < 0 ? T{-1} : x;
    return x > 0 ? T{1} : negative;
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    const T agreement = sign(g) * sign(s[0]);
    T factor = agreement > 0 ? eta_plus : T{1};
    factor = agreement < 0 ? eta_minus : factor;
    T step = s[1] * factor;
    step = step < step_min ? step_min : step;
    step = step > step_max ? step_max : step;
    const T kept = agreement < 0 ? T{0} : g;
    s[0] = kept;
    s[1] = step;
    p -= sign(kept) * step;
  }
};

// Chen 2023. Its weight decay is decoupled and done by the loop.
template <class T>
struct Lion {
  static constexpr const char* name = "lion";
  static constexpr StateNames<1> states{"exp_avg"};
  static constexpr unsigned nonnegative = 0;
  Moments<T> moments;
  T lr;

  THALWEG_RULE void prepare(const Hyper& h, StepState&) {
    moments.prepare(h);
    lr = static_cast<T>(h.lr);
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    p -= lr * Rprop<T>::sign(moments.first(s[0], g));
    s[0] = moments.beta2 * s[0] + moments.one_minus_beta2 * g;
  }
};

// You, Gitman & Ginsburg 2017: the rate of a tensor grows with its norm over its gradient's.
template <class T>
struct Lars {
  static constexpr const char* name = "lars";
  static constexpr StateNames<1> states{"momentum_buffer"};
  T momentum, rate, decay;
  double lr, trust, rule_decay, eps;

  THALWEG_RULE void prepare(const Hyper& h, StepState&) {
    momentum = static_cast<T>(h.momentum), decay = static_cast<T>(h.rule_decay);
    lr = h.lr, trust = h.trust, rule_decay = h.rule_decay, eps = h.eps;
  }
  THALWEG_RULE T measure(T, T g, T*) const { return g; }
  THALWEG_RULE void adapt(double norm_p, double norm_g) {
    const double ratio = trust * norm_p / (norm_g + rule_decay * norm_p + eps);
    rate = static_cast<T>(norm_p == 0 || norm_g == 0 ? lr : lr * ratio);
  }
  THALWEG_RULE void operator()(T& p, T g, T* s) const {
    s[0] = momentum * s[0] + rate * (g + decay * p);
    p -= s[0];
  }
};

// You et al. 2020, Alg. 2: Adam's direction, decay included, made as long as the parameter.
template <class T>
struct Lamb {
  static constexpr const char* name = "lamb";
  static constexpr StateNames<2> states{"exp_avg", "exp_avg_sq"};
  Moments<T> moments;
  T first, root, eps, decay, rate;
  double lr;

  THALWEG_RULE void prepare(const Hyper& h, StepState& s) {
    moments.prepare(h);
    first = static_cast<T>(1 / (1 - s.beta1_power));
    root = static_cast<T>(1 / sqrt(1 - s.beta2_power));
    eps = static_cast<T>(h.eps), decay = static_cast<T>(h.rule_decay);
    lr = h.lr;
  }
  THALWEG_RULE T direction(T p, const T* s) const {
    return s[0] * first / (sqrt(s[1]) * root + eps) + decay * p;
  }
  THALWEG_RULE T measure(T p, T g, T* s) const {
    s[0] = moments.first(s[0], g);
    s[1] = moments.second(s[1], g);
    return direction(p, s);
  }
  THALWEG_RULE void adapt(double norm_p, double norm_u) {
    rate = static_cast<T>(norm_p == 0 || norm_u == 0 ? lr : lr * norm_p / norm_u);
  }
  THALWEG_RULE void operator()(T& p, T, T* s) const { p -= rate * direction(p, s); }
};

template <class Rule>
inline constexpr bool has_norm_phase = requires(Rule& rule) { rule.adapt(0.0, 0.0); };

template <class Rule>
inline constexpr bool has_8bit_states = requires { Rule::nonnegative; };

template <class T>
using OptimRules = TypeList<Sgd<T>, Momentum<T>, Adagrad<T>, Adadelta<T>, Rmsprop<T>, RmspropMomentum<T>,
                            RmspropCentered<T>, RmspropCenteredMomentum<T>, Adam<T>, AdamAmsgrad<T>,
                            Adamax<T>, Nadam<T>, Radam<T>, Rprop<T>, Lion<T>, Lars<T>, Lamb<T>>;

// What the loop does to every gradient before the rule and to every parameter around it.
template <class T>
struct OptimStages {
  T grad_scale;          // loss scale, 1/world, clip by norm and the sign of maximize, in one factor
  T clip_value;          // +Inf: off
  T l2;                  // weight decay that goes through the gradient
  T keep;                // 1 - lr*weight_decay where the decay is decoupled, else 1
  T ema_keep, ema_take;  // average = ema_keep*average + ema_take*p

  static THALWEG_RULE OptimStages prepare(const Hyper& h, const OptimStageOptions& options) {
    const bool decoupled = h.decoupled != 0;
    return {static_cast<T>(h.maximize != 0 ? -options.grad_scale : options.grad_scale),
            static_cast<T>(options.clip_value),
            static_cast<T>(decoupled ? 0 : h.weight_decay),
            static_cast<T>(decoupled ? 1 - h.lr * h.weight_decay : 1),
            static_cast<T>(options.ema_decay),
            static_cast<T>(1 - options.ema_decay)};
  }

  THALWEG_RULE T gradient(T g, T p) const {
    g *= grad_scale;
    g = g > clip_value ? clip_value : g;  // NaN compares false and goes through
    g = g < -clip_value ? -clip_value : g;
    return g + l2 * p;
  }
};

}  // namespace THALWEG_ISA
}  // namespace thalweg
