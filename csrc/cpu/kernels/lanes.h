// The kTreeLanes lanes of base/tree.h as doubles in registers: 2 zmm, 4 ymm or 8 xmm.
//
// Why not leave them to the vectoriser: it keeps an array of accumulators in memory, and each add
// would wait for a store.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "base/config.h"
#include "base/tree.h"

namespace thalweg {
THALWEG_ISA_NAMESPACE {

#if defined(__AVX512F__)
inline constexpr int kDoubles = 8;
#elif defined(__AVX__)
inline constexpr int kDoubles = 4;
#else
inline constexpr int kDoubles = 2;
#endif

typedef double Doubles __attribute__((vector_size(kDoubles * sizeof(double))));
typedef float HalfFloats __attribute__((vector_size(kDoubles * sizeof(float))));

THALWEG_RULE Doubles widen(HalfFloats x) {
#if defined(__AVX512F__)
  return _mm512_maskz_cvtps_pd(0xFF, x);  // GCC 12 makes six instructions of the line below
#else
  return __builtin_convertvector(x, Doubles);
#endif
}

struct Lanes {
  static constexpr int kParts = kTreeLanes / kDoubles;
  Doubles part[kParts];

  static THALWEG_RULE Lanes all(double value) {
    Lanes lanes;
    for (int k = 0; k < kParts; ++k) lanes.part[k] = Doubles{} + value;
    return lanes;
  }

  static THALWEG_RULE Lanes load(const double* x) {
    Lanes lanes;
    for (int k = 0; k < kParts; ++k) std::memcpy(&lanes.part[k], x + k * kDoubles, sizeof(Doubles));
    return lanes;
  }

  static THALWEG_RULE Lanes load(const float* x) {
    Lanes lanes;
    for (int k = 0; k < kParts; ++k) {
      HalfFloats narrow;
      std::memcpy(&narrow, x + k * kDoubles, sizeof narrow);
      lanes.part[k] = widen(narrow);
    }
    return lanes;
  }

  // The first n < kTreeLanes elements; the other lanes get `rest`.
  template <class T>
  static THALWEG_RULE Lanes load_some(const T* x, std::int64_t n, double rest) {
    double values[kTreeLanes];
    for (int j = 0; j < kTreeLanes; ++j) values[j] = j < n ? static_cast<double>(x[j]) : rest;
    return load(values);
  }

  // Pairwise, neighbours first, like merge_pairwise().
  template <class Merge>
  THALWEG_RULE double fold(const Merge& merge) const {
    double values[kTreeLanes];
    std::memcpy(values, part, sizeof values);
    merge_pairwise(values, kTreeLanes, merge);
    return values[0];
  }

  THALWEG_RULE double sum() const {
    return fold([](double a, double b) { return a + b; });
  }
};

// f on each part: combine(f, a, b).part[k] = f(a.part[k], b.part[k]).
template <class F, class... More>
THALWEG_RULE Lanes combine(const F& f, const More&... lanes) {
  Lanes result;
  for (int k = 0; k < Lanes::kParts; ++k) result.part[k] = f(lanes.part[k]...);
  return result;
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
