#include "cpu/kernels/lanes.h"
#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

template <class Rule, class T>
double reduce_row(const T* x, std::int64_t n) {
  return reduce_block<Rule>(n, [](auto value) { return Rule::map(value); }, x);
}

template <class Rule, class T>
void reduce_columns(const T* __restrict x, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                    double* __restrict out, std::int64_t out_stride) {
  alignas(64) double lanes[kTreeLanes][kReduceColumns];
  for (auto& lane : lanes)
    for (std::int64_t c = 0; c < columns; ++c) lane[c] = Rule::kIdentity;
  for (std::int64_t r = 0; r < rows; ++r) {
    double* lane = lanes[r % kTreeLanes];
    const T* row = x + r * stride;
#pragma GCC ivdep
    for (std::int64_t c = 0; c < columns; ++c)
      lane[c] = Rule::merge(lane[c], Rule::map(static_cast<double>(row[c])));
  }
  for (int step = 1; step < kTreeLanes; step *= 2)
    for (int j = 0; j < kTreeLanes; j += 2 * step)
#pragma GCC ivdep
      for (std::int64_t c = 0; c < columns; ++c) lanes[j][c] = Rule::merge(lanes[j][c], lanes[j + step][c]);
  for (std::int64_t c = 0; c < columns; ++c) out[c * out_stride] = lanes[0][c];
}

template <class T>
void fill_blocks(ReduceBlock<T> (&blocks)[kReductions]) {
  blocks[static_cast<int>(Reduction::sum)] = {reduce_row<Sum, T>, reduce_columns<Sum, T>};
  blocks[static_cast<int>(Reduction::sum_squares)] = {reduce_row<SumSquares, T>,
                                                      reduce_columns<SumSquares, T>};
  blocks[static_cast<int>(Reduction::max)] = {reduce_row<Max, T>, reduce_columns<Max, T>};
  blocks[static_cast<int>(Reduction::min)] = {reduce_row<Min, T>, reduce_columns<Min, T>};
}

}  // namespace

void fill(ReduceKernels& kernels) {
  fill_blocks(kernels.f32);
  fill_blocks(kernels.f64);
  kernels.sum_squares_f32 = reduce_row<SumSquares, float>;
  kernels.sum_squares_f64 = reduce_row<SumSquares, double>;
}

}  // namespace thalweg::THALWEG_ISA
