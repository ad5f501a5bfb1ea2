// The reduction tree. Its shape depends on the number of elements alone, never on threads, ISA or
// fusion, so every sum of the package has the same bits however the work was cut.
//
// Contiguous elements fall into blocks of kTreeBlock. Inside a block, lane j of kTreeLanes sums the
// elements i = j (mod kTreeLanes) in order; lanes, and then blocks, are merged pairwise. With 4096
// and 16 the rounding error is at most (256 + 4 + log2(blocks)) ulp of the accumulator.
#pragma once

#include <cstdint>

#include "base/config.h"

namespace thalweg {

inline constexpr std::int64_t kTreeBlock = 4096;
inline constexpr int kTreeLanes = 16;

inline constexpr std::int64_t tree_blocks(std::int64_t n) { return (n + kTreeBlock - 1) / kTreeBlock; }

inline namespace THALWEG_ISA {

// Merges n partial results pairwise into partial[0]: neighbours first, an odd one waits a round.
template <class T, class Merge>
THALWEG_RULE void merge_pairwise(T* partial, std::int64_t n, const Merge& merge) {
  for (std::int64_t stride = 1; stride < n; stride *= 2)
    for (std::int64_t i = 0; i + stride < n; i += 2 * stride)
      partial[i] = merge(partial[i], partial[i + stride]);
}

template <class T>
THALWEG_RULE T sum_pairwise(T* partial, std::int64_t n) {
  if (n == 0) return T{};
  merge_pairwise(partial, n, [](T a, T b) { return a + b; });
  return partial[0];
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
