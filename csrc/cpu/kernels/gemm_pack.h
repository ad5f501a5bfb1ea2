// Packing: rows of an operand, wherever they lie, become panels that a tile reads front to back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "cpu/kernels/gemm_vector.h"

namespace thalweg {
inline namespace THALWEG_ISA {

template <class T>
using LaneIndex = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

// Lane l of the result is lane index(l) of a, or lane index(l) - kWidth of b.
template <class T, class Index, int... kLane>
THALWEG_RULE Vector<T> shuffle(Vector<T> a, Vector<T> b, Index index, std::integer_sequence<int, kLane...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, index(kLane)...);
#else
  return __builtin_shuffle(a, b, Vector<LaneIndex<T>>{index(kLane)...});
#endif
}

// rows[i][j] <-> rows[j][i]: the blocks beside the diagonal change places, of size 1, 2, 4, … < kEnd.
template <class T, int kBlock = 1, int kEnd = kWidth<T>>
THALWEG_RULE void transpose(Vector<T>* rows) {
  if constexpr (kBlock < kEnd) {
    constexpr auto lanes = std::make_integer_sequence<int, kWidth<T>>{};
#pragma GCC unroll 16
    for (int i = 0; i < kWidth<T>; ++i) {
      if (i & kBlock) continue;
      const Vector<T> a = rows[i], b = rows[i + kBlock];
      rows[i] =
          shuffle<T>(a, b, [](int l) constexpr { return l & kBlock ? l - kBlock + kWidth<T> : l; }, lanes);
      rows[i + kBlock] =
          shuffle<T>(a, b, [](int l) constexpr { return l & kBlock ? l + kWidth<T> : l + kBlock; }, lanes);
    }
    transpose<T, 2 * kBlock, kEnd>(rows);
  }
}

// panel[k * kPanel + i] = src[i * row + k], i < count: squares of vectors, transposed in registers.
// Panel rows beyond `count` become zero.
template <class T, int kPanel>
void pack_transposed(T* panel, const T* src, std::int64_t row, std::int64_t count, std::int64_t depth) {
  for (std::int64_t k = 0; k < depth; k += kWidth<T>) {
    const int steps = static_cast<int>(std::min<std::int64_t>(kWidth<T>, depth - k));
    const Lanes<T> some(steps);
#pragma GCC unroll 4
    for (int first = 0; first < kPanel; first += kWidth<T>) {
      constexpr int kLast = kPanel % kWidth<T> == 0 ? kWidth<T> : kPanel % kWidth<T>;
      const Lanes<T> last(kLast);
      const bool whole = first + kWidth<T> <= kPanel;
      Vector<T> rows[kWidth<T>];
#pragma GCC unroll 16
      for (int i = 0; i < kWidth<T>; ++i) {
        if (first + i >= count)
          rows[i] = Vector<T>{};
        else if (Lanes<T>::kFree || steps < kWidth<T>)
          rows[i] = some.load(src + (first + i) * row + k);
        else
          rows[i] = load(src + (first + i) * row + k);
      }
      transpose<T>(rows);
#pragma GCC unroll 16
      for (int i = 0; i < kWidth<T>; ++i) {
        if (i >= steps) break;
        T* to = panel + (k + i) * kPanel + first;
        if (whole)
          store(to, rows[i]);
        else
          last.store(to, rows[i]);
      }
    }
  }
}

template <class T, int kPanel>
void pack_panel(T* panel, const T* src, std::int64_t row, std::int64_t col, std::int64_t count,
                std::int64_t depth) {
  if (col == 1 && row != 1 && depth > 1) return pack_transposed<T, kPanel>(panel, src, row, count, depth);
  if (row == 1 && count == kPanel) {
    for (std::int64_t k = 0; k < depth; ++k)
      for (int i = 0; i < kPanel; ++i) panel[k * kPanel + i] = src[k * col + i];
    return;
  }
  for (std::int64_t k = 0; k < depth; ++k)
    for (std::int64_t i = 0; i < count; ++i) panel[k * kPanel + i] = src[i * row + k * col];
}

template <class T, int kPanel>
void pack(T* panels, const T* src, std::int64_t row, std::int64_t col, std::int64_t rows,
          std::int64_t depth) {
  for (std::int64_t first = 0; first < rows; first += kPanel, panels += kPanel * depth)
    pack_panel<T, kPanel>(panels, src + first * row, row, col, std::min<std::int64_t>(kPanel, rows - first),
                          depth);
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
