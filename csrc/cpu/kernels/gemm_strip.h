// Products that use each element of B a few times at most, with B contiguous along K: squares of B are
// transposed in registers and multiplied at once. Packing would write and read them once more.
//
// A lane owns one chain of multiply-adds over k in order, as an element of a tile does: the bits agree.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/kernels/gemm.h"
#include "cpu/kernels/gemm_transpose.h"
#include "cpu/kernels/gemm_vector.h"

namespace thalweg {
inline namespace THALWEG_ISA {

// Elements before the first multiple of a vector's size. Rows whose distance is a power of two share a
// set of L1: a vector across two lines would fetch each line twice.
template <class T>
THALWEG_RULE int steps_to_aligned(const T* p) {
  const auto past = static_cast<int>(reinterpret_cast<std::uintptr_t>(p) / sizeof(T) % kWidth<T>);
  return past == 0 ? kWidth<T> : kWidth<T> - past;
}

// sums[row] += a[row, k : k + steps] on the transposed square.
template <class T, int kRows>
THALWEG_RULE void multiply_square(const T* a, std::int64_t a_row, std::int64_t a_col,
                                  const Vector<T>* columns, int steps, Vector<T>* sums) {
#pragma GCC unroll 16
  for (int i = 0; i < kWidth<T>; ++i) {
    if (i >= steps) break;
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row)
      sums[row] = multiply_add<T>(broadcast(a[row * a_row + i * a_col]), columns[i], sums[row]);
  }
}

// A tile of up to kGroups vectors of columns; b_row is 1.
template <class T, int kRows, int kGroups>
void multiply_strip(const GemmTile<T>& t) {
  const auto lanes = [&](int group) { return std::min(kWidth<T>, t.columns - group * kWidth<T>); };
  const auto pointers = [&](int group) {
    return LanePointers<T>(t.b + group * kWidth<T> * t.b_col, t.b_col, lanes(group));
  };
  const LanePointers<T> b[2] = {pointers(0), pointers(kGroups - 1)};
  Vector<T> sums[kGroups][kRows] = {}, columns[kWidth<T>];
  const auto some_steps = [&](std::int64_t k, int steps) {
    for (int group = 0; group < kGroups; ++group) {
      load_transposed(b[group].at, k, steps, columns);
      multiply_square<T, kRows>(t.a + k * t.a_col, t.a_row, t.a_col, columns, steps, sums[group]);
    }
  };
  std::int64_t k = std::min<std::int64_t>(t.k, steps_to_aligned(t.b));
  some_steps(0, static_cast<int>(k));
  for (; k + kWidth<T> <= t.k; k += kWidth<T>) {
#pragma GCC unroll 2
    for (int group = 0; group < kGroups; ++group) {
      load_transposed(b[group].at, k, columns);
      multiply_square<T, kRows>(t.a + k * t.a_col, t.a_row, t.a_col, columns, kWidth<T>, sums[group]);
    }
  }
  if (k < t.k) some_steps(k, static_cast<int>(t.k - k));
  for (int group = 0; group < kGroups; ++group) {
    const Lanes<T> some(lanes(group));
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      T* c = t.c + row * t.c_row + group * kWidth<T>;
      some.store(c, t.accumulate ? some.load(c) + sums[group][row] : sums[group][row]);
    }
  }
}

// A tile of up to two vectors of columns: together where a single one would wait for its chains, unless
// all of them fall into one set of L1.
template <class T, int kRows>
void strip(const GemmTile<T>& tile) {
  GemmTile<T> t = tile;
  const bool alias = t.b_col * static_cast<std::int64_t>(sizeof(T)) % 2048 == 0;
  if (kRows <= 2 && t.columns > kWidth<T> && !alias) return multiply_strip<T, kRows, 2>(t);
  const int columns = t.columns;
  t.columns = std::min(columns, kWidth<T>);
  multiply_strip<T, kRows, 1>(t);
  if (columns <= kWidth<T>) return;
  t.columns = columns - kWidth<T>;
  t.b += kWidth<T> * t.b_col;
  t.c += kWidth<T>;
  multiply_strip<T, kRows, 1>(t);
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
