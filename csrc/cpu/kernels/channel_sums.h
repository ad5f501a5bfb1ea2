// Two sums at a time over the elements of each channel of a tile, in one pass over memory.
//
// map(center, elements…) gives an element's two terms; it takes vectors and scalars.
#pragma once

#include "cpu/kernels/lanes.h"
#include "cpu/kernels/norm.h"
#include "rules/elementwise.h"

namespace thalweg {
inline namespace THALWEG_ISA {

template <class V>
struct Terms {
  V first, second;
};
template <class V>
Terms(V, V) -> Terms<V>;

constexpr std::int64_t kFetchElements = 2048;  // how far ahead of a sum memory is asked for, at least

// Into the second cache. The address may lie outside of the array.
template <class T>
THALWEG_RULE void prefetch(const T* x, std::int64_t i) {
  const auto offset = static_cast<std::uintptr_t>(i) * sizeof(T);
  __builtin_prefetch(reinterpret_cast<const void*>(reinterpret_cast<std::uintptr_t>(x) + offset), 0, 2);
}

// What a sum reads, as vectors of kDoubles neighbours and as single elements.
template <class T>
struct Elements {
  const T* x;
  THALWEG_RULE Doubles vector(std::int64_t i) const { return widen(load_vector(x + i)); }
  THALWEG_RULE double single(std::int64_t i) const { return static_cast<double>(x[i]); }
  THALWEG_RULE void fetch(std::int64_t i) const { prefetch(x, i); }
  THALWEG_RULE Elements from(std::int64_t i) const { return {x + i}; }
};

// dy where a ReLU with the output y lets it pass.
template <class T>
struct Rectified {
  const T *dy, *y;
  THALWEG_RULE Doubles vector(std::int64_t i) const {
    return widen(ReluBackward<Narrow<T>>{}(load_vector(dy + i), load_vector(y + i)));
  }
  THALWEG_RULE double single(std::int64_t i) const {
    return static_cast<double>(ReluBackward<T>{}(dy[i], y[i]));
  }
  THALWEG_RULE void fetch(std::int64_t i) const {
    prefetch(dy, i);
    prefetch(y, i);
  }
  THALWEG_RULE Rectified from(std::int64_t i) const { return {dy + i, y + i}; }
};

// All elements belong to one channel. Lane j of base/tree.h sums the elements j (mod kTreeLanes) of
// every run.
template <class Map, class... Source>
THALWEG_RULE Terms<double> sum_planes(Runs runs, double center, const Map& map, const Source&... x) {
  Lanes first = Lanes::all(0), second = first;
  double rest[2][kTreeLanes] = {};
  const std::int64_t ahead = 4 * runs.stride;
  for (std::int64_t r = 0; r < runs.count; ++r) {
    std::int64_t i = r * runs.stride;
    const std::int64_t end = i + runs.length;
    for (; i + kTreeLanes <= end; i += kTreeLanes) {
      (x.fetch(i + ahead), ...);
      for (int k = 0; k < Lanes::kParts; ++k) {
        const auto terms = map(center, x.vector(i + k * kDoubles)...);
        first.part[k] += terms.first;
        second.part[k] += terms.second;
      }
    }
    for (int j = 0; i + j < end; ++j) {
      const auto terms = map(center, x.single(i + j)...);
      rest[0][j] += terms.first;
      rest[1][j] += terms.second;
    }
  }
  constexpr auto add = [](auto a, auto b) { return a + b; };
  return {fold<Sum>(combine(add, first, Lanes::load(rest[0]))),
          fold<Sum>(combine(add, second, Lanes::load(rest[1])))};
}

// Adds the terms of some runs to those of kVectors * kDoubles neighbouring channels.
template <int kVectors, class Center, class Map, class... Source>
THALWEG_RULE void add_runs(Runs runs, std::int64_t channel, const Center& center, Terms<Doubles>* sums,
                           const Map& map, const Source&... x) {
  Doubles middle[kVectors];
  for (int k = 0; k < kVectors; ++k) middle[k] = center.vector(channel + k * kDoubles);
  const std::int64_t ahead = runs.stride * (kFetchElements / runs.length + 4);
  for (std::int64_t r = 0; r < runs.count; ++r) {
    const std::int64_t at = r * runs.stride + channel;
    (x.fetch(at + ahead), ...);
    for (int k = 0; k < kVectors; ++k) {
      const auto terms = map(middle[k], x.vector(at + k * kDoubles)...);
      sums[k].first += terms.first;
      sums[k].second += terms.second;
    }
  }
}

// The same for sums in memory.
template <int kVectors, class Center, class Map, class... Source>
THALWEG_RULE void add_runs(Runs runs, std::int64_t channel, const Center& center, double* first,
                           double* second, const Map& map, const Source&... x) {
  Terms<Doubles> sums[kVectors];
  for (int k = 0; k < kVectors; ++k)
    sums[k] = {load_vector(first + channel + k * kDoubles), load_vector(second + channel + k * kDoubles)};
  add_runs<kVectors>(runs, channel, center, sums, map, x...);
  for (int k = 0; k < kVectors; ++k) {
    std::memcpy(first + channel + k * kDoubles, &sums[k].first, sizeof(Doubles));
    std::memcpy(second + channel + k * kDoubles, &sums[k].second, sizeof(Doubles));
  }
}

// Element c of a run belongs to channel c, whose terms are added to first[c] and second[c] run by run.
// Four runs at a time: the sums are loaded and stored once for all four. More would fall into one set of
// the first cache where runs are a page apart.
//
// Where the channels are no multiple of kDoubles, the last vector covers the last kDoubles of them, with
// sums of its own; of these only the channels that no other vector has are kept.
template <class Center, class Map, class... Source>
THALWEG_RULE void sum_rows(Runs runs, const Center& center, double* __restrict first,
                           double* __restrict second, const Map& map, const Source&... x) {
  constexpr std::int64_t kRuns = 4;
  const std::int64_t n = runs.length, whole = n / kDoubles * kDoubles, last = n - kDoubles;
  if (n < kDoubles) {
    for (std::int64_t r = 0; r < runs.count; ++r)
      for (std::int64_t c = 0; c < n; ++c) {
        const auto terms = map(center.single(c), x.single(r * runs.stride + c)...);
        first[c] += terms.first;
        second[c] += terms.second;
      }
    return;
  }
  Terms<Doubles> tail{load_vector(first + last), load_vector(second + last)};
  for (std::int64_t r = 0; r < runs.count; r += kRuns) {
    const Runs few{runs.count - r < kRuns ? runs.count - r : kRuns, runs.stride, n};
    const std::int64_t skip = r * runs.stride;
    std::int64_t c = 0;
    for (; c + kTreeLanes <= n; c += kTreeLanes)
      add_runs<Lanes::kParts>(few, c, center, first, second, map, x.from(skip)...);
    for (; c < whole; c += kDoubles) add_runs<1>(few, c, center, first, second, map, x.from(skip)...);
    if (whole < n) add_runs<1>(few, last, center, &tail, map, x.from(skip)...);
  }
  for (std::int64_t c = whole; c < n; ++c) {
    first[c] = tail.first[c - last];
    second[c] = tail.second[c - last];
  }
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
