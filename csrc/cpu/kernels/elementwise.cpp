#include "cpu/kernels/elementwise.h"

#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

template <class Rule, class T>
Rule make_rule(T parameter) {
  if constexpr (requires { Rule::parameter; })
    return Rule{parameter};
  else
    return Rule{};
}

// ivdep: an input is y itself or apart from it.
template <template <class> class Rule, class T>
void unary(const T* x, T* y, std::int64_t n, double parameter) {
  const auto rule = make_rule<Rule<T>>(static_cast<T>(parameter));
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) y[i] = rule(x[i]);
}

template <template <class> class Rule, class T>
void binary(const T* a, const T* b, T* y, std::int64_t n, double parameter) {
  const auto rule = make_rule<Rule<T>>(static_cast<T>(parameter));
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) y[i] = rule(a[i], b[i]);
}

template <class T>
void fill_loops(ElementwiseLoops<T>& loops) {
  UnaryRules::for_each([&]<template <class> class Rule>(int i) { loops.unary[i] = unary<Rule, T>; });
  BinaryRules::for_each([&]<template <class> class Rule>(int i) { loops.binary[i] = binary<Rule, T>; });
  GradientRules::for_each([&]<template <class> class Rule>(int i) { loops.gradient[i] = binary<Rule, T>; });
}

}  // namespace

void fill(ElementwiseKernels& kernels) {
  fill_loops(kernels.f32);
  fill_loops(kernels.f64);
}

}  // namespace thalweg::THALWEG_ISA
