// A matrix times a column (N = 1), and a row times a matrix whose rows are contiguous (M = 1).
#pragma once

#include "cpu/gemm.h"

namespace thalweg {

// Does the product and returns true if it is one of these.
//
// A column's elements are inner products: K falls into blocks of kInnerDepth, each summed in 16 lanes
// (kernels/gemm.h), and the sums are added to C in order. It depends on N = 1 and K alone. A row is
// summed as every other product is, so that a sample's result does not depend on its batch.
template <class T>
bool multiply_vector(const GemmProblem& p);

inline constexpr std::int64_t kInnerDepth = 4096;

}  // namespace thalweg
