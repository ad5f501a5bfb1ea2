// A matrix times a column, and a row times a matrix: every element of the matrix is used once, so it
// is read where it lies, in long runs.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>

#include "cpu/kernels/gemm.h"
#include "cpu/kernels/gemm_transpose.h"
#include "cpu/kernels/gemm_vector.h"

namespace thalweg {
inline namespace THALWEG_ISA {

// The 16 lanes of an inner product in as many registers as they take.
template <class T>
struct InnerLanes {
  static constexpr int kVectors = kInnerLanes / kWidth<T>;
  Vector<T> v[kVectors] = {};

  THALWEG_RULE void add(const Vector<T>* a, const Vector<T>* x) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) v[i] = multiply_add<T>(a[i], x[i], v[i]);
  }

  // Neighbours first. Both halves of an exchange hold the same sum, since additions commute.
  template <int kDistance = 1>
  THALWEG_RULE T sum() {
    if constexpr (kDistance < kWidth<T>) {
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; ++i)
        v[i] += shuffle<T>(
            v[i], v[i], [](int l) constexpr { return l ^ kDistance; },
            std::make_integer_sequence<int, kWidth<T>>{});
      return sum<2 * kDistance>();
    }
#pragma GCC unroll 8
    for (int apart = 1; apart < kVectors; apart *= 2)
#pragma GCC unroll 8
      for (int i = 0; i < kVectors; i += 2 * apart) v[i] += v[i + apart];
    return v[0][0];
  }
};

// Elements k … k + count of a row into 16 lanes; 0 beyond, which leaves a lane as it is.
template <class T>
THALWEG_RULE void load_lanes(const T* p, std::int64_t col, int count, Vector<T>* lanes) {
  if (col == 1 && count == kInnerLanes) {
#pragma GCC unroll 8
    for (int i = 0; i < InnerLanes<T>::kVectors; ++i) lanes[i] = load(p + i * kWidth<T>);
    return;
  }
  T some[kInnerLanes] = {};
  for (int lane = 0; lane < count; ++lane) some[lane] = p[lane * col];
#pragma GCC unroll 8
  for (int i = 0; i < InnerLanes<T>::kVectors; ++i) lanes[i] = load(some + i * kWidth<T>);
}

template <class T, int kRows>
THALWEG_RULE void inner_group(const InnerRows<T>& r, std::int64_t first, T* sums) {
  constexpr int kVectors = InnerLanes<T>::kVectors;
  InnerLanes<T> lanes[kRows];
  Vector<T> x[kVectors], a[kVectors];
  const auto step = [&](std::int64_t k, int count, std::int64_t a_col) __attribute__((always_inline)) {
    if (r.x_row == 0) load_lanes(r.x + k, 1, count, x);
#pragma GCC unroll 8
    for (int row = 0; row < kRows; ++row) {
      if (r.x_row != 0) load_lanes(r.x + (first + row) * r.x_row + k, 1, count, x);
      load_lanes(r.a + (first + row) * r.a_row + k * a_col, a_col, count, a);
      lanes[row].add(a, x);
    }
  };
  std::int64_t k = 0;
  if (r.a_col == 1)
    for (; k + kInnerLanes <= r.k; k += kInnerLanes) step(k, kInnerLanes, 1);
  for (; k < r.k; k += kInnerLanes)
    step(k, static_cast<int>(std::min<std::int64_t>(kInnerLanes, r.k - k)), r.a_col);
#pragma GCC unroll 8
  for (int row = 0; row < kRows; ++row) sums[first + row] = lanes[row].sum();
}

// Several rows at a time: the chains of one would wait for its multiply-adds.
template <class T>
void inner_rows(const InnerRows<T>& r, T* sums) {
  constexpr int kRows = std::max(1, 8 / InnerLanes<T>::kVectors);
  std::int64_t first = 0;
  for (; first + kRows <= r.rows; first += kRows) inner_group<T, kRows>(r, first, sums);
  for (; first < r.rows; ++first) inner_group<T, 1>(r, first, sums);
}

// sums[j] += x[i] b[i, j] for kRows rows in order, j < columns.
template <class T, int kRows>
THALWEG_RULE void add_some_rows(const T* b, std::int64_t b_row, const T* x, std::int64_t x_step,
                                std::int64_t columns, T* sums) {
  Vector<T> factor[kRows];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) factor[i] = broadcast(x[i * x_step]);
  std::int64_t j = 0;
  for (; j + kWidth<T> <= columns; j += kWidth<T>) {
    Vector<T> sum = load(sums + j);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) sum = multiply_add<T>(factor[i], load(b + i * b_row + j), sum);
    store(sums + j, sum);
  }
  if (j == columns) return;
  const Lanes<T> some(static_cast<int>(columns - j));
  Vector<T> sum = some.load(sums + j);
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) sum = multiply_add<T>(factor[i], some.load(b + i * b_row + j), sum);
  some.store(sums + j, sum);
}

// sums[j] = the chain over k rows of x[k] b[k, j]: few rows at a time, which the prefetchers follow.
template <class T>
void row_chain(const T* b, std::int64_t b_row, const T* x, std::int64_t x_step, std::int64_t k,
               std::int64_t columns, T* sums) {
  std::fill_n(sums, columns, T{});
  for (; k >= 8; k -= 8, b += 8 * b_row, x += 8 * x_step)
    add_some_rows<T, 8>(b, b_row, x, x_step, columns, sums);
  for (; k > 0; --k, b += b_row, x += x_step) add_some_rows<T, 1>(b, b_row, x, x_step, columns, sums);
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
