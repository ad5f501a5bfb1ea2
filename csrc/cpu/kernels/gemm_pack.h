// Packing: rows of an operand, wherever they lie, become panels that a tile reads front to back.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/kernels/gemm_transpose.h"
#include "cpu/kernels/gemm_vector.h"

namespace thalweg {
inline namespace THALWEG_ISA {

// panel[k * kPanel + i] = src[i * row + k], i < count: squares of vectors, transposed in registers.
template <class T, int kPanel>
void pack_transposed(T* panel, const T* src, std::int64_t row, std::int64_t count, std::int64_t depth) {
  for (std::int64_t first = 0; first < count; first += kWidth<T>) {
    const LanePointers<T> from(src + first * row, row, std::min<std::int64_t>(kWidth<T>, count - first));
    const Lanes<T> some(static_cast<int>(std::min<std::int64_t>(kWidth<T>, kPanel - first)));
    Vector<T> columns[kWidth<T>];
    T* to = panel + first;
    std::int64_t k = 0;
    for (; k + kWidth<T> <= depth; k += kWidth<T>) {
      load_transposed(from.at, k, columns);
#pragma GCC unroll 16
      for (int i = 0; i < kWidth<T>; ++i, to += kPanel) {
        if (kPanel % kWidth<T> == 0)
          store(to, columns[i]);
        else
          some.store(to, columns[i]);
      }
    }
    if (kWidth<T> == 16 && k + 8 <= depth) {
      load_transposed<T, 1>(from.at, k, columns);
      for (int i = 0; i < 8; ++i, to += kPanel) some.store(to, columns[i]);
      k += 8;
    }
    if (k == depth) continue;
    load_transposed(from.at, k, static_cast<int>(depth - k), columns);
    for (int i = 0; i < depth - k; ++i, to += kPanel) some.store(to, columns[i]);
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
