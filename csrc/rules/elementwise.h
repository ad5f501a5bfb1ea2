// Element-wise operations: one struct each, its derivative beside it, and the lists at the end from
// which kernels, table entries and Python functions are made. To add one: docs/adding-an-op.md.
//
// A rule has a `name` (the Python function's) and a branch-free operator() on scalars. A derivative
// takes dy and what it was `saved` from the forward call, the output y where that determines it. A
// rule with a parameter stores it as its only member and names it, with its default, in `parameter`.
#pragma once

#include <string_view>
#include <type_traits>

#include "base/config.h"
#include "base/math.h"
#include "base/power.h"
#include "rules/activation.h"

namespace thalweg {

struct Parameter {
  const char* name;
  double value;      // default
  double low, high;  // both included
};

inline namespace THALWEG_ISA {

// --- one operand -----------------------------------------------------------------------------

template <class T>
struct Copy {
  static constexpr const char* name = "copy";
  THALWEG_RULE T operator()(T x) const { return x; }
};

template <class T>
struct Abs {
  static constexpr const char* name = "abs";
  THALWEG_RULE T operator()(T x) const { return abs(x); }
};

template <class T>
struct Neg {
  static constexpr const char* name = "neg";
  THALWEG_RULE T operator()(T x) const { return -x; }
};

template <class T>
struct Sign {
  static constexpr const char* name = "sign";
  THALWEG_RULE T operator()(T x) const { return x > T(0) ? T(1) : x < T(0) ? T(-1) : x + T(0); }
};

template <class T>
struct Square {
  static constexpr const char* name = "square";
  THALWEG_RULE T operator()(T x) const { return x * x; }
};

template <class T>
struct Sqrt {
  static constexpr const char* name = "sqrt";
  THALWEG_RULE T operator()(T x) const { return sqrt(x); }
};

template <class T>
struct Reciprocal {
  static constexpr const char* name = "reciprocal";
  THALWEG_RULE T operator()(T x) const { return T(1) / x; }
};

template <class T>
struct Exp {
  static constexpr const char* name = "exp";
  THALWEG_RULE T operator()(T x) const { return exp(x); }
};

template <class T>
struct Log {
  static constexpr const char* name = "log";
  THALWEG_RULE T operator()(T x) const { return log(x); }
};

template <class T>
struct Erf {
  static constexpr const char* name = "erf";
  THALWEG_RULE T operator()(T x) const { return erf(x); }
};

// --- activations -----------------------------------------------------------------------------

template <class T>
struct IdentityBackward {
  static constexpr const char* name = "identity_backward";
  static constexpr const char* saved = "y";
  THALWEG_RULE T operator()(T dy, T) const { return dy; }
};
template <class T>
struct Identity {
  static constexpr const char* name = "identity";
  using Backward = IdentityBackward<T>;
  THALWEG_RULE T operator()(T x) const { return x; }
};

template <class T>
struct ReluBackward {
  static constexpr const char* name = "relu_backward";
  static constexpr const char* saved = "y";
  THALWEG_RULE T operator()(T dy, T y) const { return y <= T{} ? T{} : dy; }  // vectors too
};
template <class T>
struct Relu {
  static constexpr const char* name = "relu";
  using Backward = ReluBackward<T>;
  THALWEG_RULE T operator()(T x) const { return x <= T(0) ? T(0) : x; }  // NaN stays
};

// Slopes below zero are refused: y would not tell the sign of x.
inline constexpr Parameter kNegativeSlope{"negative_slope", 0.01, 0.0, 1.7976931348623157e308};

template <class T>
struct LeakyReluBackward {
  static constexpr const char* name = "leaky_relu_backward";
  static constexpr const char* saved = "y";
  static constexpr Parameter parameter = kNegativeSlope;
  T negative_slope = T(kNegativeSlope.value);
  THALWEG_RULE T operator()(T dy, T y) const { return y <= T(0) ? dy * negative_slope : dy; }
};
template <class T>
struct LeakyRelu {
  static constexpr const char* name = "leaky_relu";
  using Backward = LeakyReluBackward<T>;
  static constexpr Parameter parameter = kNegativeSlope;
  T negative_slope = T(kNegativeSlope.value);
  THALWEG_RULE T operator()(T x) const { return x <= T(0) ? x * negative_slope : x; }
};

template <class T>
struct SigmoidBackward {
  static constexpr const char* name = "sigmoid_backward";
  static constexpr const char* saved = "y";
  THALWEG_RULE T operator()(T dy, T y) const { return dy * ((T(1) - y) * y); }
};
template <class T>
struct Sigmoid {
  static constexpr const char* name = "sigmoid";
  using Backward = SigmoidBackward<T>;
  THALWEG_RULE T operator()(T x) const { return sigmoid(x); }
};

template <class T>
struct TanhBackward {
  static constexpr const char* name = "tanh_backward";
  static constexpr const char* saved = "y";
  THALWEG_RULE T operator()(T dy, T y) const { return dy * ((T(1) - y) * (T(1) + y)); }
};
template <class T>
struct Tanh {
  static constexpr const char* name = "tanh";
  using Backward = TanhBackward<T>;
  THALWEG_RULE T operator()(T x) const { return tanh(x); }
};

// x Φ(x), the exact form of Hendrycks & Gimpel 2016. An infinity must meet no zero: φ is cut where it
// is far below an ulp of Φ, and Φ is 0 long before x = -40.
template <class T>
struct GeluBackward {  // Φ(x) + x φ(x)
  static constexpr const char* name = "gelu_backward";
  static constexpr const char* saved = "x";
  THALWEG_RULE T operator()(T dy, T x) const {
    const T exponent = T(-0.5) * x * x;
    const T cdf = T(0.5) * (T(1) + erf(x * T(0.70710678118654752440)));
    const T slope = x * (T(0.39894228040143267794) * exp_normal(exponent));
    return dy * (cdf + (exponent < T(-80) ? T(0) : slope));
  }
};
template <class T>
struct Gelu {
  static constexpr const char* name = "gelu";
  using Backward = GeluBackward<T>;
  THALWEG_RULE T operator()(T x) const {
    const T bounded = x < T(-40) ? T(-40) : x;
    return bounded * (T(0.5) * (T(1) + erf(bounded * T(0.70710678118654752440))));
  }
};

// log(1 + exp(x)); its derivative is sigmoid(x) = 1 - exp(-y).
template <class T>
struct SoftplusBackward {
  static constexpr const char* name = "softplus_backward";
  static constexpr const char* saved = "y";
  THALWEG_RULE T operator()(T dy, T y) const { return dy * -expm1(-y); }
};
template <class T>
struct Softplus {
  static constexpr const char* name = "softplus";
  using Backward = SoftplusBackward<T>;
  THALWEG_RULE T operator()(T x) const { return (x < T(0) ? T(0) : x) + log1p(exp(-abs(x))); }
};

// --- two operands ----------------------------------------------------------------------------

template <class T>
struct Add {
  static constexpr const char* name = "add";
  THALWEG_RULE T operator()(T a, T b) const { return a + b; }
};

template <class T>
struct Sub {
  static constexpr const char* name = "sub";
  THALWEG_RULE T operator()(T a, T b) const { return a - b; }
};

template <class T>
struct Mul {
  static constexpr const char* name = "mul";
  THALWEG_RULE T operator()(T a, T b) const { return a * b; }
};

template <class T>
struct Div {
  static constexpr const char* name = "div";
  THALWEG_RULE T operator()(T a, T b) const { return a / b; }
};

template <class T>
struct Pow {
  static constexpr const char* name = "pow";
  THALWEG_RULE T operator()(T a, T b) const { return pow(a, b); }
};

template <class T>
struct Maximum {
  static constexpr const char* name = "maximum";
  THALWEG_RULE T operator()(T a, T b) const { return maximum(a, b); }
};

template <class T>
struct Minimum {
  static constexpr const char* name = "minimum";
  THALWEG_RULE T operator()(T a, T b) const { return minimum(a, b); }
};

// The derivative of the larger of a and b in a: equal ones share.
template <class T>
struct Above {
  static constexpr const char* name = "above";
  THALWEG_RULE T operator()(T a, T b) const { return a > b ? T(1) : a == b ? T(0.5) : T(0); }
};

// Comparisons as masks: 1 where they hold, else 0, NaN included.
template <class T>
struct Less {
  static constexpr const char* name = "less";
  THALWEG_RULE T operator()(T a, T b) const { return a < b ? T(1) : T(0); }
};

template <class T>
struct Equal {
  static constexpr const char* name = "equal";
  THALWEG_RULE T operator()(T a, T b) const { return a == b ? T(1) : T(0); }
};

// a where b is 0 and the other way round, by the bits: -0 stays -0. Halves of a choice are put together.
template <class T>
struct Join {
  static constexpr const char* name = "join";
  THALWEG_RULE T operator()(T a, T b) const { return from_bits<T>(to_bits(a) | to_bits(b)); }
};

// --- the lists -------------------------------------------------------------------------------

template <template <class> class... Rules>
struct RuleList {
  static constexpr int kSize = sizeof...(Rules);

  // f.template operator()<Rule>(index) for every rule of the list.
  template <class F>
  static constexpr void for_each(F&& f) {
    int index = 0;
    (f.template operator()<Rules>(index++), ...);
  }

  template <template <class> class Wanted>
  static constexpr int index_of() {
    int result = -1;
    for_each([&]<template <class> class Rule>(int index) {
      if (std::is_same_v<Rule<float>, Wanted<float>>) result = index;
    });
    return result;
  }
};

using UnaryRules = RuleList<Copy, Abs, Neg, Sign, Square, Sqrt, Reciprocal, Exp, Log, Erf, Sigmoid, Tanh,
                            Relu, LeakyRelu, Gelu, Softplus>;
using BinaryRules = RuleList<Add, Sub, Mul, Div, Pow, Maximum, Minimum, Above, Less, Equal, Join>;
using GradientRules =
    RuleList<ReluBackward, LeakyReluBackward, SigmoidBackward, TanhBackward, SoftplusBackward, GeluBackward>;

using Activations = RuleList<Identity, Relu, LeakyRelu, Sigmoid, Tanh, Gelu, Softplus>;
static_assert(Activations::kSize == static_cast<int>(Activation::softplus) + 1);
static_assert([] {
  bool same = true;
  Activations::for_each([&]<template <class> class Rule>(int index) {
    same = same && std::string_view(Rule<float>::name) == kActivationNames[index];
  });
  return same;
}());

// f(Relu<T>{}) for Activation::relu, and so on; parameters have their defaults.
template <class T, class F>
void with_activation(Activation activation, F&& f) {
  Activations::for_each([&]<template <class> class Rule>(int index) {
    if (index == static_cast<int>(activation)) f(Rule<T>{});
  });
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
