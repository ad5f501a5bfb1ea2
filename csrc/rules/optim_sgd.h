// Gradient descent and its momentum forms.
#pragma once

#include "rules/optim_common.h"

namespace thalweg {
inline namespace THALWEG_ISA {

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

}  // namespace THALWEG_ISA
}  // namespace thalweg
