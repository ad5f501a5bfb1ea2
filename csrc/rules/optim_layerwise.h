// Rules with a norm phase: the rate of a tensor depends on its norm.
#pragma once

#include "rules/optim_common.h"

namespace thalweg {
inline namespace THALWEG_ISA {

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

}  // namespace THALWEG_ISA
}  // namespace thalweg
