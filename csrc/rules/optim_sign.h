// Rules that use the sign of the gradient and not its size.
#pragma once

#include "rules/optim_common.h"

namespace thalweg {
inline namespace THALWEG_ISA {

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

}  // namespace THALWEG_ISA
}  // namespace thalweg
