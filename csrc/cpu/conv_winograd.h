// What forward and backward of Winograd convolutions share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/conv_correlation.h"

namespace thalweg::winograd {

inline constexpr std::int64_t kPoints = 36;  // products of a tile

// Results of a tile along an axis.
constexpr std::int64_t tile_of(std::int64_t kernel) { return 6 - (kernel - 1); }

inline std::size_t bytes_of(std::int64_t elements) {
  return static_cast<std::size_t>(elements) * sizeof(float);
}

// Rows of matrices that would fall into few sets of L1 are longer by a line.
inline std::int64_t pitch_of(std::int64_t channels) { return channels % 256 == 0 ? channels + 16 : channels; }

// Fewer channels leave the transforms too much of the time, more would take hundreds of megabytes for
// transformed weights, and small images leave tiles half empty.
inline bool worthwhile(std::int64_t inputs, std::int64_t outputs, Extents size, std::int64_t tile) {
  const std::int64_t tiles = ceil_div(size.height, tile) * ceil_div(size.width, tile);
  return inputs >= 16 && outputs >= 16 && inputs * outputs <= (1 << 20) &&
         2 * size.height * size.width > tiles * tile * tile;
}

// 3 or 5 where the taps are a square of neighbours of that size, else 0.
inline std::int64_t kernel_of(const Taps& taps) {
  const std::int64_t size = all_of(taps.rows).end;
  if ((size != 3 && size != 5) || all_of(taps.columns).end != size) return 0;
  const std::int64_t step = taps.rows[1].offset - taps.rows[0].offset;
  if (step != 1 && step != -1) return 0;
  for (const auto* axis : {&taps.rows, &taps.columns})
    for (std::size_t i = 1; i < axis->size(); ++i)
      if ((*axis)[i].offset - (*axis)[i - 1].offset != step) return 0;
  return size;
}

// c (rows, columns of a panel) = (accumulate ? c : 0) + a (rows, k) b (k, panel), in tiles of rows.
inline void multiply(const ConvFamily<float>& kernels, const ConvFamily<float>::TileFunction* tiles,
                     ConvTile<float> tile, std::int64_t a_row, std::int64_t rows) {
  const std::int64_t count = ceil_div(rows, kernels.tile_rows);
  for (std::int64_t t = 0; t < count; ++t) {
    const std::int64_t some = part_begin(rows, count, t + 1) - part_begin(rows, count, t);
    tiles[kernels.index(some, tile.columns, kernels.vector)](tile);
    tile.a += some * a_row;
    tile.c += some * tile.c_row;
  }
}

}  // namespace thalweg::winograd
