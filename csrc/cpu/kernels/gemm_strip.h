// Products that use each element of B a few times at most, with B contiguous along K: squares of B are
// transposed in registers and multiplied at once. Packing would write and read them once more.
//
// A lane owns one chain of multiply-adds over k in order, as an element of a tile does: the bits agree.
#pragma once

#include <algorithm>
#include <cstdint>

#include "cpu/kernels/gemm.h"
#include "cpu/kernels/gemm_pack.h"
#include "cpu/kernels/gemm_vector.h"

namespace thalweg {
inline namespace THALWEG_ISA {

// The 4 x 4 squares in lanes 4 g … 4 g + 3 of four rows, each transposed, by interleaving: the generic
// exchange of single lanes costs a permutation of two registers, half as fast on Zen 4.
template <class T>
THALWEG_RULE void transpose_quads(const Vector<T>* rows, Vector<T>* columns) {
  constexpr auto lanes = std::make_integer_sequence<int, kWidth<T>>{};
  constexpr int w = kWidth<T>;
  const auto low = [](int l) constexpr { return (l & ~3) + (l & 3) / 2 + (l & 1) * w; };
  const auto high = [](int l) constexpr { return (l & ~3) + 2 + (l & 3) / 2 + (l & 1) * w; };
  const auto low_pairs = [](int l) constexpr { return (l & ~3) + (l & 1) + (l & 2) / 2 * w; };
  const auto high_pairs = [](int l) constexpr { return (l & ~3) + 2 + (l & 1) + (l & 2) / 2 * w; };
  const Vector<T> low01 = shuffle<T>(rows[0], rows[1], low, lanes);
  const Vector<T> high01 = shuffle<T>(rows[0], rows[1], high, lanes);
  const Vector<T> low23 = shuffle<T>(rows[2], rows[3], low, lanes);
  const Vector<T> high23 = shuffle<T>(rows[2], rows[3], high, lanes);
  columns[0] = shuffle<T>(low01, low23, low_pairs, lanes);
  columns[1] = shuffle<T>(low01, low23, high_pairs, lanes);
  columns[2] = shuffle<T>(high01, high23, low_pairs, lanes);
  columns[3] = shuffle<T>(high01, high23, high_pairs, lanes);
}

// Lane l of columns[i] is element k + i of row l, i < kWidth. Halves of a vector come from two rows,
// which saves a stage of shuffles.
template <class T>
THALWEG_RULE void load_transposed(const T* const* at, std::int64_t k, Vector<T>* columns) {
  if constexpr (kWidth<T> == 16) {
    constexpr auto lanes = std::make_integer_sequence<int, 16>{};
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const std::int64_t from = k + 8 * half;
      Vector<T> even[4], odd[4];  // quads of rows r, r + 4, r + 8, r + 12
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const Vector<T> a = load_halves(at[r] + from, at[r + 4] + from);
        const Vector<T> b = load_halves(at[r + 8] + from, at[r + 12] + from);
        even[r] = shuffle<T>(a, b, [](int l) constexpr { return l / 4 * 8 + l % 4; }, lanes);
        odd[r] = shuffle<T>(a, b, [](int l) constexpr { return l / 4 * 8 + 4 + l % 4; }, lanes);
      }
      transpose_quads<T>(even, columns + 8 * half);
      transpose_quads<T>(odd, columns + 8 * half + 4);
    }
  } else {
    constexpr int kHalf = kWidth<T> / 2;
    Vector<T> rows[kWidth<T>];
#pragma GCC unroll 8
    for (int i = 0; i < kWidth<T>; ++i) {
      const int row = i % kHalf, from = i / kHalf * kHalf;
      rows[i] = load_halves(at[row] + k + from, at[row + kHalf] + k + from);
    }
    if constexpr (kWidth<T> == 8 && sizeof(T) == 4) {
      transpose_quads<T>(rows, columns);
      transpose_quads<T>(rows + 4, columns + 4);
    } else {
      std::copy_n(rows, kWidth<T>, columns);
      transpose<T, 1, kHalf>(columns);
    }
  }
}

// The same for k … k + steps alone.
template <class T>
THALWEG_RULE void load_transposed(const T* const* at, std::int64_t k, int steps, Vector<T>* columns) {
  const Lanes<T> some(steps);
#pragma GCC unroll 16
  for (int lane = 0; lane < kWidth<T>; ++lane) columns[lane] = some.load(at[lane] + k);
  transpose<T>(columns);
}

// Where each lane reads. Lanes beyond `count` read what the last one does.
template <class T>
struct LanePointers {
  const T* at[kWidth<T>];

  LanePointers(const T* first, std::int64_t stride, std::int64_t count) {
    for (int lane = 0; lane < kWidth<T>; ++lane)
      at[lane] = first + std::min<std::int64_t>(lane, count - 1) * stride;
  }
};

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

// chains[lane] += the inner product of lane's elements from … to of x and y.
template <class T>
THALWEG_RULE Vector<T> extend(Vector<T> chains, const LanePointers<T>& x, const LanePointers<T>& y,
                              std::int64_t from, std::int64_t to) {
  Vector<T> a[kWidth<T>], b[kWidth<T>];
  for (; from + kWidth<T> <= to; from += kWidth<T>) {
    load_transposed(x.at, from, a);
    load_transposed(y.at, from, b);
#pragma GCC unroll 16
    for (int i = 0; i < kWidth<T>; ++i) chains = multiply_add<T>(a[i], b[i], chains);
  }
  if (from == to) return chains;
  const int steps = static_cast<int>(to - from);
  load_transposed(x.at, from, steps, a);
  load_transposed(y.at, from, steps, b);
  for (int i = 0; i < steps; ++i) chains = multiply_add<T>(a[i], b[i], chains);
  return chains;
}

// sums[block] = the inner product of x and y over block * depth … of `length` elements, for `count`
// blocks, of which the last may be short. One lane for each block: a single chain would wait for every
// multiply-add.
template <class T>
void inner_blocks(const T* x, const T* y, std::int64_t length, std::int64_t depth, std::int64_t count,
                  T* sums) {
  for (std::int64_t first = 0; first < count; first += kWidth<T>) {
    const std::int64_t start = first * depth, lanes = std::min<std::int64_t>(kWidth<T>, count - first);
    const std::int64_t common = std::min(depth, length - start - (lanes - 1) * depth);
    const LanePointers<T> left(x + start, depth, lanes), right(y + start, depth, lanes);
    Vector<T> chains = extend(Vector<T>{}, left, right, 0, common);
    const T shortest = chains[lanes - 1];
    if (common < depth && lanes > 1) {
      const LanePointers<T> longer_left(x + start, depth, lanes - 1),
          longer_right(y + start, depth, lanes - 1);
      chains = extend(chains, longer_left, longer_right, common, depth);
    }
    Lanes<T>(static_cast<int>(lanes)).store(sums + first, chains);
    sums[first + lanes - 1] = shortest;
  }
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
