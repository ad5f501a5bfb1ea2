// Rules that divide each gradient by a mean of its past: formulas and defaults in optim/rules.py.
#pragma once

#include "rules/optim_common.h"

namespace thalweg {
inline namespace THALWEG_ISA {

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

}  // namespace THALWEG_ISA
}  // namespace thalweg
