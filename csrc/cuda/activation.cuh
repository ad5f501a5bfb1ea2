// A fused activation, chosen at run time: one branch per element, the same in all threads.
#pragma once

#include "cuda/primitives.cuh"
#include "rules/elementwise.h"

namespace thalweg::cuda {

template <class T>
__device__ inline T activate(Activation activation, T x) {
  T result = x;
  Activations::for_each([&]<template <class> class Rule>(int index) {
    if (index == static_cast<int>(activation)) result = Rule<T>{}(x);
  });
  return result;
}

}  // namespace thalweg::cuda
