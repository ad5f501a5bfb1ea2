// Register tiles of matrix products: kRows x kVectors registers of C stay in place over all of k.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cpu/kernels/gemm.h"
#include "cpu/kernels/gemm_vector.h"

namespace thalweg {
inline namespace THALWEG_ISA {

// The registers that a tile is made of.
template <class T>
struct WholeRegister {
  using Value = Vector<T>;
  using Some = Lanes<T>;
  static constexpr int kLanes = kWidth<T>;
  THALWEG_RULE static Value load(const T* p) { return THALWEG_ISA::load(p); }
  THALWEG_RULE static void store(T* p, Value v) { THALWEG_ISA::store(p, v); }
  THALWEG_RULE static Value broadcast(T x) { return THALWEG_ISA::broadcast(x); }
  THALWEG_RULE static Value multiply_add(Value a, Value b, Value c) {
    return THALWEG_ISA::multiply_add<T>(a, b, c);
  }
};

#if defined(__AVX512F__)
// Half a register: an FMA of 256 bits costs half of one of 512 where the units are that wide (Zen 4),
// and no more elsewhere. For the last few columns.
template <class T>
struct HalfRegister {
  static constexpr int kLanes = kWidth<T> / 2;
  typedef T Value __attribute__((vector_size(kVectorBytes / 2)));
  typedef T Unaligned __attribute__((vector_size(kVectorBytes / 2), aligned(alignof(T)), may_alias));
  struct Some {
    static constexpr bool kFree = true;
    __mmask8 mask;
    THALWEG_RULE explicit Some(int count) : mask(static_cast<__mmask8>((1U << count) - 1)) {}
    THALWEG_RULE Value load(const T* p) const {
      if constexpr (sizeof(T) == 4)
        return (Value)_mm256_maskz_loadu_ps(mask, p);
      else
        return (Value)_mm256_maskz_loadu_pd(mask, p);
    }
    THALWEG_RULE void store(T* p, Value v) const {
      if constexpr (sizeof(T) == 4)
        _mm256_mask_storeu_ps(p, mask, (__m256)v);
      else
        _mm256_mask_storeu_pd(p, mask, (__m256d)v);
    }
  };
  THALWEG_RULE static Value load(const T* p) { return *reinterpret_cast<const Unaligned*>(p); }
  THALWEG_RULE static void store(T* p, Value v) { *reinterpret_cast<Unaligned*>(p) = v; }
  THALWEG_RULE static Value broadcast(T x) { return x - Value{}; }
  THALWEG_RULE static Value multiply_add(Value a, Value b, Value c) {
    if constexpr (sizeof(T) == 4)
      return (Value)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
    else
      return (Value)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
  }
};
#else
template <class T>
using HalfRegister = WholeRegister<T>;  // never asked for
#endif

template <class T, class R, int kVectors, bool kPartial>
struct Row {
  typename R::Value v[kVectors];

  THALWEG_RULE void load(const T* p, const typename R::Some& last) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j)
      v[j] = kPartial && j == kVectors - 1 ? last.load(p + j * R::kLanes) : R::load(p + j * R::kLanes);
  }

  THALWEG_RULE void store(T* p, const typename R::Some& last) const {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      if (kPartial && j == kVectors - 1)
        last.store(p + j * R::kLanes, v[j]);
      else
        R::store(p + j * R::kLanes, v[j]);
    }
  }
};

// C is fetched a row at a time, some steps of k apart: all at once, its misses would hold up those of A
// and B. A short chain ends before they have come.
inline constexpr std::int64_t kPrefetchSteps = 4, kSpread = 64;

// kUnitRow: a_row is 1 (A packed, or transposed in memory), so that rows are constant displacements.
template <class T, class R, int kRows, int kVectors, bool kUnitRow, bool kPartial>
__attribute__((always_inline)) inline void multiply(const GemmTile<T>& t) {
  const typename R::Some last(t.columns - (kVectors - 1) * R::kLanes);
  const std::int64_t a_row = kUnitRow ? 1 : t.a_row;
  const T *a = t.a, *b = t.b;
  Row<T, R, kVectors, kPartial> sums[kRows] = {}, row;
  const T* ahead = t.c;
  int waiting = t.k < kSpread ? 0 : kRows;
  for (std::int64_t left = t.k; left > 0; --waiting) {
    const std::int64_t steps = waiting > 0 ? std::min(left, kPrefetchSteps) : left;
    if (waiting > 0) {
      for (int j = 0; j < kVectors; ++j) __builtin_prefetch(ahead + j * R::kLanes, 1);
      ahead += t.c_row;
    }
    left -= steps;
    for (std::int64_t k = steps; k > 0; --k) {
      row.load(b, last);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const typename R::Value x = R::broadcast(a[i * a_row]);
#pragma GCC unroll 8
        for (int j = 0; j < kVectors; ++j) sums[i].v[j] = R::multiply_add(x, row.v[j], sums[i].v[j]);
      }
      a += t.a_col;
      b += t.b_row;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    T* c = t.c + i * t.c_row;
    if (t.accumulate) {
      row.load(c, last);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[i].v[j] = row.v[j] + sums[i].v[j];
    }
    sums[i].store(c, last);
  }
}

// kVectors 0: half a register.
template <class T, int kRows, int kVectors, bool kUnitRow>
void tile(const GemmTile<T>& t) {
  using R = std::conditional_t<kVectors == 0, HalfRegister<T>, WholeRegister<T>>;
  constexpr int kCount = kVectors == 0 ? 1 : kVectors;
  if (R::Some::kFree || t.columns % R::kLanes != 0)
    multiply<T, R, kRows, kCount, kUnitRow, true>(t);
  else
    multiply<T, R, kRows, kCount, kUnitRow, false>(t);
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
