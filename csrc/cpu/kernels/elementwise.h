// Element-wise loops over contiguous elements, one per rule of rules/elementwise.h.
#pragma once

#include <cstdint>

#include "rules/elementwise.h"

namespace thalweg {

// y may be an input (the same elements in the same places). `parameter` is the rule's own, if any.
template <class T>
struct ElementwiseLoops {
  // y[i] = rule(x[i])
  using Unary = void (*)(const T* x, T* y, std::int64_t n, double parameter);
  // y[i] = rule(a[i * a_step], b[i * b_step]) with steps 0 or 1
  using Binary = void (*)(const T* a, int a_step, const T* b, int b_step, T* y, std::int64_t n,
                          double parameter);

  Unary unary[UnaryRules::kSize] = {};
  Binary binary[BinaryRules::kSize] = {};
  Binary gradient[GradientRules::kSize] = {};  // a = dy, b = what was saved
};

struct ElementwiseKernels {
  ElementwiseLoops<float> f32;
  ElementwiseLoops<double> f64;
};

}  // namespace thalweg
