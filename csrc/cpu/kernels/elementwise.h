// Element-wise loops over contiguous elements, one per rule of rules/elementwise.h.
#pragma once

#include <cstdint>

#include "rules/elementwise.h"

namespace thalweg {

// y may be an input (the same elements in the same places). `parameter` is the rule's own, if any.
//
// Why no loops for a number as operand: the driver repeats it in a buffer that stays in L1. A third
// of the code, and GCC refuses some loops that compare with an invariant.
template <class T>
struct ElementwiseLoops {
  using Unary = void (*)(const T* x, T* y, std::int64_t n, double parameter);  // y[i] = rule(x[i])
  using Binary = void (*)(const T* a, const T* b, T* y, std::int64_t n, double parameter);

  Unary unary[UnaryRules::kSize] = {};
  Binary binary[BinaryRules::kSize] = {};
  Binary gradient[GradientRules::kSize] = {};  // a = dy, b = what was saved
};

struct ElementwiseKernels {
  ElementwiseLoops<float> f32;
  ElementwiseLoops<double> f64;
};

}  // namespace thalweg
