// One vector register of the instruction set that this file is compiled for: loads, stores, and the
// multiply-add of matrix products.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <type_traits>

#include "base/config.h"

namespace thalweg {
inline namespace THALWEG_ISA {

#if defined(__AVX512F__)
inline constexpr int kVectorBytes = 64;
#elif defined(__AVX2__)
inline constexpr int kVectorBytes = 32;
#else
inline constexpr int kVectorBytes = 16;
#endif

template <class T>
inline constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(T));

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(kVectorBytes)));
  typedef T unaligned __attribute__((vector_size(kVectorBytes), aligned(alignof(T)), may_alias));
};
template <class T>
using Vector = typename VectorOf<T>::type;

template <class T>
THALWEG_RULE Vector<T> load(const T* p) {
  return *reinterpret_cast<const typename VectorOf<T>::unaligned*>(p);
}

// The lower half of the result lies at p, the upper one at q.
template <class T>
THALWEG_RULE Vector<T> load_halves(const T* p, const T* q) {
#if defined(__AVX512F__)
  // The form without a mask makes GCC 12 warn of an undefined operand; both are the same instruction.
  return (Vector<T>)_mm512_maskz_insertf64x4(0xff, _mm512_castpd256_pd512(_mm256_loadu_pd((const double*)p)),
                                             _mm256_loadu_pd((const double*)q), 1);
#elif defined(__AVX2__)
  return (Vector<T>)_mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadu_pd((const double*)p)),
                                         _mm_loadu_pd((const double*)q), 1);
#else
  return (Vector<T>)_mm_unpacklo_epi64(_mm_loadu_si64(p), _mm_loadu_si64(q));
#endif
}

template <class T>
THALWEG_RULE void store(T* p, Vector<T> v) {
  *reinterpret_cast<typename VectorOf<T>::unaligned*>(p) = v;
}

template <class T>
THALWEG_RULE Vector<T> broadcast(T x) {
  return x - Vector<T>{};  // x - 0 is x, so that only the broadcast remains
}

// a * b + c: rounded once where the instruction set has FMA, twice on the baseline.
template <class T>
THALWEG_RULE Vector<T> multiply_add(Vector<T> a, Vector<T> b, Vector<T> c) {
#if defined(__AVX512F__)
  if constexpr (sizeof(T) == 4)
    return (Vector<T>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
  else
    return (Vector<T>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(__FMA__)
  if constexpr (sizeof(T) == 4)
    return (Vector<T>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
  else
    return (Vector<T>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

// The first `count` lanes, 1 … kWidth<T>. Memory behind the others is never touched.
template <class T>
struct Lanes {
#if defined(__AVX512F__)
  static constexpr bool kFree = true;  // a masked access costs no more than a plain one
  using Mask = std::conditional_t<sizeof(T) == 4, __mmask16, __mmask8>;
  Mask mask;
  THALWEG_RULE explicit Lanes(int count) : mask(static_cast<Mask>((1U << count) - 1)) {}
  THALWEG_RULE Vector<T> load(const T* p) const {
    if constexpr (sizeof(T) == 4)
      return (Vector<T>)_mm512_maskz_loadu_ps(mask, p);
    else
      return (Vector<T>)_mm512_maskz_loadu_pd(mask, p);
  }
  THALWEG_RULE void store(T* p, Vector<T> v) const {
    if constexpr (sizeof(T) == 4)
      _mm512_mask_storeu_ps(p, mask, (__m512)v);
    else
      _mm512_mask_storeu_pd(p, mask, (__m512d)v);
  }
#elif defined(__AVX2__)
  static constexpr bool kFree = false;
  __m256i mask;
  THALWEG_RULE explicit Lanes(int count) {
    if constexpr (sizeof(T) == 4)
      mask = _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    else
      mask = _mm256_cmpgt_epi64(_mm256_set1_epi64x(count), _mm256_setr_epi64x(0, 1, 2, 3));
  }
  THALWEG_RULE Vector<T> load(const T* p) const {
    if constexpr (sizeof(T) == 4)
      return (Vector<T>)_mm256_maskload_ps(p, mask);
    else
      return (Vector<T>)_mm256_maskload_pd(p, mask);
  }
  THALWEG_RULE void store(T* p, Vector<T> v) const {
    if constexpr (sizeof(T) == 4)
      _mm256_maskstore_ps(p, mask, (__m256)v);
    else
      _mm256_maskstore_pd(p, mask, (__m256d)v);
  }
#else
  static constexpr bool kFree = false;
  int count;
  THALWEG_RULE explicit Lanes(int n) : count(n) {}
  THALWEG_RULE Vector<T> load(const T* p) const {
    Vector<T> v{};
    for (int i = 0; i < count; ++i) v[i] = p[i];
    return v;
  }
  THALWEG_RULE void store(T* p, Vector<T> v) const {
    for (int i = 0; i < count; ++i) p[i] = v[i];
  }
#endif
};

}  // namespace THALWEG_ISA
}  // namespace thalweg
