// Convolutions as sums of products over runs: a register tile whose K is a list of runs, so that the
// taps of a kernel are added up without lowering the image to a matrix (the batch-reduce product of
// Georganas et al. 2018, arXiv:1808.05567).
//
// Every element of a tile is one chain of multiply-adds over the runs in order, from zero, as in
// gemm.h: its bits are those of the product of the lowered matrices.
#pragma once

#include <cstdint>

namespace thalweg {

struct ConvRun {
  std::int64_t a, b;    // where it begins, in elements
  std::int64_t length;  // steps of K
};

// C[i, j] = (accumulate ? C[i, j] : 0) + sum over runs r and k < r.length of A(i, k) b[r.b + k * b_row + j],
// where A(i, k) is a[r.a + i * a_step + k] in `tiles` and a[r.a + i + k * a_step] in `column_tiles`.
template <class T>
struct ConvTile {
  const T* a;
  std::int64_t a_step;
  const ConvRun* runs;
  std::int64_t run_count;
  const T* b;
  std::int64_t b_row;
  T* c;
  std::int64_t c_row;
  int columns;
  bool accumulate;
  bool resume = false;  // the chains go on from C instead of from zero; not with `accumulate`
};

// y[p * y_step + c] = sum over t of x[p * x_step + taps[t] + c] * weight[t * channels + c], a chain from
// zero.
template <class T>
struct ConvChannels {
  const T* x;
  std::int64_t x_step;
  const std::int64_t* taps;
  std::int64_t tap_count;
  const T* weight;
  T* y;
  std::int64_t y_step;
  std::int64_t pixels, channels;
};

// y[i * y_row + j] = sum over t of x[i * x_row + taps[t] + j] * weight[t], a chain from zero.
template <class T>
struct ConvPlane {
  const T* x;
  std::int64_t x_row;
  const std::int64_t* taps;
  std::int64_t tap_count;
  const T* weight;
  T* y;
  std::int64_t y_row;
  std::int64_t rows, pixels;
};

// sums[t * sums_row + c] = (accumulate ? itself : 0) + sum over rows r and pixels p < r.length of
// x[r.a + p * x_step + taps[t] + c] * dy[r.b + p * dy_step + c], a chain from zero.
template <class T>
struct ConvChannelSums {
  const T* x;
  std::int64_t x_step;
  const std::int64_t* taps;
  std::int64_t tap_count;
  const ConvRun* rows;
  std::int64_t row_count;
  const T* dy;
  std::int64_t dy_step;
  T* sums;
  std::int64_t sums_row;
  std::int64_t channels;
  bool accumulate;
};

template <class T>
struct ConvFamily {
  using TileFunction = void (*)(const ConvTile<T>&);
  static constexpr int kTileVectors = 2;

  int vector = 0;     // elements of a register; a tile has up to kTileVectors of them
  int tile_rows = 0;  // of the largest tile
  const TileFunction *tiles = nullptr, *column_tiles = nullptr;  // by rows - 1, vectors - 1

  int tile_columns() const { return kTileVectors * vector; }
  static std::int64_t index(std::int64_t rows, std::int64_t columns, int vector) {
    return (rows - 1) * kTileVectors + (columns - 1) / vector;
  }

  // Of depthwise convolutions.
  void (*channels)(const ConvChannels<T>&) = nullptr;
  void (*plane)(const ConvPlane<T>&) = nullptr;
  void (*channel_sums)(const ConvChannelSums<T>&) = nullptr;

  // to[i * to_row + j * to_col] = from[i * from_row + j * from_col], i < rows, j < columns.
  void (*copy)(T* to, std::int64_t to_row, std::int64_t to_col, const T* from, std::int64_t from_row,
               std::int64_t from_col, std::int64_t rows, std::int64_t columns) = nullptr;
};

struct ConvKernels {
  ConvFamily<float> f32;
  ConvFamily<double> f64;

  template <class T>
  const ConvFamily<T>& family() const {
    if constexpr (sizeof(T) == 8)
      return f64;
    else
      return f32;
  }
};

}  // namespace thalweg
