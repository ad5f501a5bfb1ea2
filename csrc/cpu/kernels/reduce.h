// Reductions of one tree block (base/tree.h): at most kTreeBlock elements, accumulated in double
// whatever the element type, since a block's elements are read far more slowly than they are added.
#pragma once

#include <cstdint>

#include "rules/reduce.h"

namespace thalweg {

inline constexpr std::int64_t kReduceColumns = 128;  // 16 KiB of lanes: half of a small L1

template <class T>
struct ReduceBlock {
  // n contiguous elements.
  double (*row)(const T* x, std::int64_t n) = nullptr;
  // Column c of `rows` rows that lie `stride` apart goes to out[c * out_stride]; at most
  // kReduceColumns columns. The same tree over the same elements as row(), hence the same bits.
  void (*columns)(const T* x, std::int64_t stride, std::int64_t rows, std::int64_t columns, double* out,
                  std::int64_t out_stride) = nullptr;
};

struct ReduceKernels {
  double (*sum_squares_f32)(const float* x, std::int64_t n) = nullptr;
  double (*sum_squares_f64)(const double* x, std::int64_t n) = nullptr;

  ReduceBlock<float> f32[kReductions];
  ReduceBlock<double> f64[kReductions];

  template <class T>
  const ReduceBlock<T>& block(Reduction reduction) const {
    if constexpr (sizeof(T) == 4)
      return f32[static_cast<int>(reduction)];
    else
      return f64[static_cast<int>(reduction)];
  }
};

}  // namespace thalweg
