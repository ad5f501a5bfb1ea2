// The kTreeLanes lanes of base/tree.h as doubles in registers: 2 zmm, 4 ymm or 8 xmm.
//
// Why not leave them to the vectoriser: it keeps an array of accumulators in memory, and each add
// would wait for a store.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "base/config.h"
#include "base/tree.h"
#include "rules/reduce.h"

namespace thalweg {
inline namespace THALWEG_ISA {

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

THALWEG_RULE Doubles widen(Doubles x) { return x; }

// Past the caches, to an aligned address.
THALWEG_RULE void stream_vector(double* to, Doubles x) {
#if defined(__AVX512F__)
  _mm512_stream_pd(to, x);
#elif defined(__AVX__)
  _mm256_stream_pd(to, x);
#else
  _mm_stream_pd(to, x);
#endif
}

// kDoubles elements of T.
template <class T>
using Narrow = std::conditional_t<sizeof(T) == sizeof(float), HalfFloats, Doubles>;

template <class T>
THALWEG_RULE Narrow<T> load_vector(const T* x) {
  Narrow<T> vector;
  std::memcpy(&vector, x, sizeof vector);
  return vector;
}

struct Lanes {
  static constexpr int kParts = kTreeLanes / kDoubles;
  Doubles part[kParts];

  static THALWEG_RULE Lanes all(double value) {
    Lanes lanes;
    for (int k = 0; k < kParts; ++k) lanes.part[k] = Doubles{} + value;
    return lanes;
  }

  template <class T>
  static THALWEG_RULE Lanes load(const T* x) {
    Lanes lanes;
    for (int k = 0; k < kParts; ++k) lanes.part[k] = widen(load_vector(x + k * kDoubles));
    return lanes;
  }
};

// f on each part: combine(f, a, b).part[k] = f(a.part[k], b.part[k]).
template <class F, class... More>
THALWEG_RULE Lanes combine(const F& f, const More&... lanes) {
  Lanes result;
  for (int k = 0; k < Lanes::kParts; ++k) result.part[k] = f(lanes.part[k]...);
  return result;
}

// Pairwise, neighbours first, like every other merge of the tree.
template <class Rule>
THALWEG_RULE double fold(const Lanes& lanes) {
  double lane[kTreeLanes];
  std::memcpy(lane, &lanes, sizeof lane);
  merge_pairwise(lane, kTreeLanes, [](double a, double b) { return Rule::merge(a, b); });
  return lane[0];
}

// Rule-merges map(x[i]…) over one tree block: i < n <= kTreeBlock. `map` takes vectors and scalars.
template <class Rule, class Map, class... T>
THALWEG_RULE double reduce_block(std::int64_t n, const Map& map, const T*... x) {
  Lanes lanes = Lanes::all(Rule::kIdentity);
  std::int64_t i = 0;
  for (; i + kTreeLanes <= n; i += kTreeLanes)
    lanes = combine([](Doubles a, Doubles b) { return Rule::merge(a, b); }, lanes,
                    combine(map, Lanes::load(x + i)...));
  double lane[kTreeLanes];
  std::memcpy(lane, &lanes, sizeof lane);
  for (int j = 0; i + j < n; ++j) lane[j] = Rule::merge(lane[j], map(static_cast<double>(x[i + j])...));
  return fold<Rule>(Lanes::load(lane));
}

// The same over any number of blocks. Equal runs of blocks merge as soon as they are complete, the
// rest at the end, smallest first: merge_pairwise's tree without its array.
template <class Rule, class Map, class... T>
THALWEG_RULE double reduce_row(std::int64_t n, const Map& map, const T*... x) {
  double runs[64];
  int depth = 0;
  std::int64_t blocks = 0;
  for (std::int64_t i = 0; i < n; i += kTreeBlock) {
    double run = reduce_block<Rule>(n - i < kTreeBlock ? n - i : kTreeBlock, map, (x + i)...);
    for (std::int64_t complete = ++blocks; complete % 2 == 0; complete /= 2)
      run = Rule::merge(runs[--depth], run);
    runs[depth++] = run;
  }
  if (depth == 0) return Rule::kIdentity;
  double result = runs[--depth];
  while (depth > 0) result = Rule::merge(runs[--depth], result);
  return result;
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
