// Products of bfloat16 parts on AMX or AVX512_BF16: packing, blocking, threads, and what they cannot do.
#pragma once

#include "cpu/gemm.h"
#include "cpu/kernels/gemm_bf16.h"

namespace thalweg {

// A float32 problem in 1, 3 or 6 products of its parts, or a bfloat16 problem in one. Tiles of C whose
// rows or columns hold what the parts cannot represent (infinities, NaN, sums near overflow; with
// `keep_tiny` also magnitudes near underflow) get the bits of the multiply-add path.
//
// K is summed in blocks of at most 1024, in order. The bits depend on K, on the values of the tile's
// rows and columns, and on the instruction set, never on threads.
void gemm_split(const GemmProblem& problem, const Bf16Kernels& kernels, int products, bool keep_tiny);

}  // namespace thalweg
