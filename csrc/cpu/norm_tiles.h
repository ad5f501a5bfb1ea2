// How normalisation goes through tiles: partial results that are merged, and results that are written.
#pragma once

#include <algorithm>
#include <optional>

#include "base/scratch.h"
#include "cpu/channels.h"
#include "cpu/isa.h"

namespace thalweg::cpu {

inline constexpr std::int64_t kChunk =
    2048;  // elements between a loop and what follows it in the first cache
// Planes of a result at least that large are written past the caches: with the inputs it is more than a
// last-level cache of 32 MiB keeps. Rows gain nothing from it, short planes lose (Zen 4, 26 MB).
inline constexpr double kStreamBytes = 16 << 20;
inline constexpr std::int64_t kStreamRun = 512;  // elements

// How results are written: at once, in pieces that something follows in the first cache, or through a
// buffer past all caches.
enum class Writing { direct, pieces, past_caches };

inline Writing writing_of(const View& out, const Channels& channels, Runs runs, bool followed) {
  if (channels.planes() && out.bytes() >= kStreamBytes && runs.length >= kStreamRun)
    return Writing::past_caches;
  return followed ? Writing::pieces : Writing::direct;
}

// Calls write(offset, runs, target) for all of `runs`, whose results belong to `out`.
template <class T, class F>
void write_runs(Runs runs, T* out, Writing writing, const F& write) {
  if (writing == Writing::direct) return write(std::int64_t{0}, runs, out);
  if (writing == Writing::pieces) {  // of whole runs, since a run of rows has many channels
    const std::int64_t step = std::max<std::int64_t>(1, kChunk / runs.length);
    for (std::int64_t r = 0; r < runs.count; r += step)
      write(r * runs.stride, Runs{std::min(step, runs.count - r), runs.stride, runs.length},
            out + r * runs.stride);
    return;
  }
  alignas(64) T buffer[kChunk];
  for (std::int64_t r = 0; r < runs.count; ++r)
    for (std::int64_t i = 0; i < runs.length; i += kChunk) {
      const std::int64_t at = r * runs.stride + i, n = std::min(kChunk, runs.length - i);
      write(at, Runs{1, n, n}, buffer);
      kernels().norm.stream(buffer, out + at, n * static_cast<std::int64_t>(sizeof(T)));
    }
}

// Two partial results per tile and channel, merged pairwise over the tiles into `first` and `second`.
// compute(tile, range, first, second); merge(first_a, second_a, tile_a, first_b, second_b, tile_b, end_b).
template <class Compute, class Merge>
void merge_tiles(const Channels& channels, ChannelRange range, double* first, double* second,
                 const Compute& compute, const Merge& merge) {
  const std::int64_t tiles = channels.tiles(), width = range.size();
  if (tiles == 0) {
    std::fill(first + range.begin, first + range.end, 0.0);
    std::fill(second + range.begin, second + range.end, 0.0);
    return;
  }
  const Scratch<double> partial(tiles > 1 ? 2 * tiles * width : 0);
  const auto slot = [&](double* result, std::int64_t half, std::int64_t t) {
    return tiles == 1 ? result + range.begin : partial.get() + (half * tiles + t) * width;
  };
  channels.for_tiles(range, [&](std::int64_t t, ChannelRange part) {
    const std::int64_t c = part.begin - range.begin;
    compute(channels.tile(t, part), part, slot(first, 0, t) + c, slot(second, 1, t) + c);
  });
  for (std::int64_t stride = 1; stride < tiles; stride *= 2)
    for (std::int64_t t = 0; t + stride < tiles; t += 2 * stride)
      merge(slot(first, 0, t), slot(second, 1, t), t, slot(first, 0, t + stride), slot(second, 1, t + stride),
            t + stride, std::min(t + 2 * stride, tiles));
  if (tiles == 1) return;
  std::copy_n(slot(first, 0, 0), width, first + range.begin);
  std::copy_n(slot(second, 1, 0), width, second + range.begin);
}

// A channel vector of the caller, or a constant where there is none.
template <class T>
double channel_value(const std::optional<View>& v, std::int64_t c, double otherwise) {
  return v ? static_cast<double>(v->as<const T>()[c * v->strides[0]]) : otherwise;
}

// f(offset, elements) over the contiguous stretches of some runs.
template <class F>
void for_stretches(Runs runs, const F& f) {
  if (runs.stride == runs.length) return f(std::int64_t{0}, runs.count * runs.length);
  for (std::int64_t r = 0; r < runs.count; ++r) f(r * runs.stride, runs.length);
}

}  // namespace thalweg::cpu
