// Convolutions as sums of bfloat16 products over runs of a window, on AMX or AVX512_BF16.
//
// Nothing is lowered to a matrix: a block's window is copied once, and a tap is an offset into it.
#pragma once

#include "cpu/conv_correlation.h"
#include "rules/precision.h"

namespace thalweg {

// bfloat16 as bits, or float32 in one, three or six products of its parts; answers whether it did the work.
// It does not where multiply-adds are asked for or faster, and gives up where an element cannot be
// represented by parts (docs/numerics.md). The bits depend on geometry and instruction set.
template <class T>
bool correlate_split(const Correlation<T>& problem, Precision precision);

}  // namespace thalweg
