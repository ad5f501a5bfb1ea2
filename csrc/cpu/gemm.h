// Matrix products: blocking, packing, batches and threads. Knows no instruction set.
#pragma once

#include <cstdint>

#include "base/view.h"
#include "rules/activation.h"

namespace thalweg {

// C[…, i, j] = activation((accumulate ? C[…, i, j] : 0) + sum_k A[…, i, k] B[…, k, j] + bias[j])
//
// Strides are in elements, may be negative, and 0 in A and B. C overlaps neither A, B, bias nor
// itself. K falls into ceil(K / kDepth) blocks of equal size; the sum of a block is one chain of
// multiply-adds from zero, and the sums are added to C in order. So the bits of a product depend on K
// alone (and on whether the instruction set has FMA), never on M, N, strides, batch or threads. Only a
// product of one column, N = 1, is summed in another order (cpu/gemv.h).
struct GemmProblem {
  struct Operand {
    void* data = nullptr;
    std::int64_t row = 0, col = 0;
    std::int64_t batch[kMaxRank] = {};
  };

  DType dtype = DType::f32;                             // of A and B
  DType c_dtype = DType::f32, bias_dtype = DType::f32;  // where A and B are bfloat16
  std::int64_t m = 0, n = 0, k = 0;
  int batch_rank = 0;
  std::int64_t batch[kMaxRank] = {};
  Operand a, b, c;
  bool accumulate = false;
  const void* bias = nullptr;
  std::int64_t bias_stride = 0;
  Activation activation = Activation::identity;

  std::int64_t batches() const {
    std::int64_t count = 1;
    for (int i = 0; i < batch_rank; ++i) count *= batch[i];
    return count;
  }

  // Of the operand's matrix in product `index` of the batch, in elements.
  std::int64_t batch_offset(const Operand& operand, std::int64_t index) const {
    std::int64_t offset = 0;
    for (int i = batch_rank - 1; i >= 0; --i) {
      offset += index % batch[i] * operand.batch[i];
      index /= batch[i];
    }
    return offset;
  }
};

void gemm(const GemmProblem& problem);  // multiply-adds; float32 and float64

}  // namespace thalweg
