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
  std::int64_t offset, length;  // of A, in elements and in steps of K
};

// C[i, j] = (accumulate ? C[i, j] : 0) + sum over runs r, k < r.length of A(i, r, k) B[k', j], where
// k' counts through all runs and A(i, r, k) = a[r.offset + i * a_step] and the k-th behind it:
// along K by 1 in `tiles`; in `column_tiles` rows are 1 apart and K advances by a_step.
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
