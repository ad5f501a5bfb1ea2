// An activation as loops of the kernel table, for results that are still in cache.
#pragma once

#include <type_traits>

#include "cpu/isa.h"
#include "rules/elementwise.h"

namespace thalweg::cpu {

template <class List, template <class> class Wanted>
constexpr int index_of() {
  int found = -1;
  List::for_each([&]<template <class> class Rule>(int index) {
    if (std::is_same_v<Rule<float>, Wanted<float>>) found = index;
  });
  return found;
}

template <class T>
const ElementwiseLoops<T>& elementwise_loops() {
  if constexpr (sizeof(T) == 4)
    return kernels().elementwise.f32;
  else
    return kernels().elementwise.f64;
}

template <class T>
struct ActivationLoops {
  typename ElementwiseLoops<T>::Unary forward = nullptr;    // null for the identity
  typename ElementwiseLoops<T>::Binary backward = nullptr;  // null too where the input is needed
  double parameter = 0;

  explicit ActivationLoops(Activation activation) {
    with_activation<T>(activation, [&]<class Rule>(Rule) {
      using Backward = typename Rule::Backward;
      if constexpr (requires { Rule::parameter; }) parameter = Rule::parameter.value;
      UnaryRules::for_each([&]<template <class> class Unary>(int i) {
        if (std::is_same_v<Unary<T>, Rule>) forward = elementwise_loops<T>().unary[i];
      });
      GradientRules::for_each([&]<template <class> class Gradient>(int i) {
        if (std::is_same_v<Gradient<T>, Backward>) backward = elementwise_loops<T>().gradient[i];
      });
    });
  }
};

}  // namespace thalweg::cpu
