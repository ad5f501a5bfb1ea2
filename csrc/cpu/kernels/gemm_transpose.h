// Squares of an operand, transposed in registers.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
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
// which saves a stage of shuffles; where that is how it is done, kHalves 1 stops at half the columns.
template <class T, int kHalves = 2>
THALWEG_RULE void load_transposed(const T* const* at, std::int64_t k, Vector<T>* columns) {
  if constexpr (kWidth<T> == 16) {
    constexpr auto lanes = std::make_integer_sequence<int, 16>{};
#pragma GCC unroll 2
    for (int half = 0; half < kHalves; ++half) {
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

}  // namespace THALWEG_ISA
}  // namespace thalweg
