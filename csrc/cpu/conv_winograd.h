// What forward and backward of Winograd convolutions share.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/conv_correlation.h"

namespace thalweg::winograd {

inline constexpr std::int64_t kTile = 4, kPoints = 36;  // results of a tile along an axis; its products

inline std::size_t bytes_of(std::int64_t elements) {
  return static_cast<std::size_t>(elements) * sizeof(float);
}

// Rows of matrices that would fall into few sets of L1 are longer by a line.
inline std::int64_t pitch_of(std::int64_t channels) { return channels % 256 == 0 ? channels + 16 : channels; }

// Fewer channels leave the transforms too much of the time, more would take hundreds of megabytes for
// transformed weights, and small images leave tiles half empty.
inline bool worthwhile(std::int64_t inputs, std::int64_t outputs, Extents size) {
  const double tiles = static_cast<double>(ceil_div(size.height, kTile) * ceil_div(size.width, kTile));
  return inputs >= 16 && outputs >= 16 && inputs * outputs <= (1 << 20) &&
         static_cast<double>(size.height * size.width) > 8 * tiles;
}

inline bool is_three_by_three(const Taps& taps) {
  const auto steps = [](const std::vector<AxisTap>& axis) {
    if (axis.size() != 3) return std::int64_t{0};
    const std::int64_t step = axis[1].offset - axis[0].offset;
    return axis[2].offset - axis[1].offset == step ? step : 0;
  };
  const std::int64_t step = steps(taps.rows);
  return (step == 1 || step == -1) && steps(taps.columns) == step;
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
