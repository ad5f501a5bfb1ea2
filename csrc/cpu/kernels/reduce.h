#pragma once

namespace thalweg {

struct ReduceKernels {
  // One tree block (at most kTreeBlock contiguous elements) of Σ x², accumulated in double.
  double (*sum_squares_f32)(const float* x, long n) = nullptr;
  double (*sum_squares_f64)(const double* x, long n) = nullptr;
};

}  // namespace thalweg
