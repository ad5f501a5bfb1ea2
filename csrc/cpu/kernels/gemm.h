// Matrix products on register tiles. Shapes: A (M, K), B (K, N), C (M, N).
//
// A product of one column (N = 1) is a matter of its own, see InnerRows. Else
// every element of a tile is one chain of multiply-adds over k in order, starting from zero, so its
// bits depend neither on the tile's size nor on how the operands lie in memory: packed and direct
// paths, AVX2 and AVX-512 agree exactly. The baseline has no FMA and rounds each product.
//
// The scheme is that of Goto & van de Geijn 2008 and Van Zee & van de Geijn 2015 (BLIS): loops know no
// ISA, kernels know no blocking.
#pragma once

#include <cstdint>

#include "rules/activation.h"

namespace thalweg {

// C[i, j] = (accumulate ? C[i, j] : 0) + sum_k A[i, k] B[k, j]; rows of B and C are contiguous.
template <class T>
struct GemmTile {
  const T* a;
  std::int64_t a_row, a_col;
  const T* b;
  std::int64_t b_row;
  std::int64_t b_col;  // of strips alone: tiles take 1
  T* c;
  std::int64_t c_row;
  std::int64_t k;
  int columns;
  bool accumulate;
};

// A matrix times a column. Lane j of 16 is the chain over k = j (mod 16) in order; the lanes of a row
// are merged pairwise, neighbours first. One chain alone would ask for a transposition of A.
inline constexpr int kInnerLanes = 16;

// sums[i] = sum_k a[i * a_row + k * a_col] x[i * x_row + k], by lanes.
template <class T>
struct InnerRows {
  const T* a;
  std::int64_t a_row, a_col;
  const T* x;
  std::int64_t x_row;
  std::int64_t k, rows;
};

template <class T>
struct GemmFamily {
  using TileFunction = void (*)(const GemmTile<T>&);

  static constexpr int kMaxVectors = 8;

  int vector = 0;                       // elements of a register
  int tile_rows = 0, tile_columns = 0;  // of the largest tile, and of the panels of packed A and B
  const TileFunction* tiles = nullptr;  // by rows - 1, vectors (0: half of one), a_row == 1
  const int* widest = nullptr;          // by rows - 1: columns at most; few rows leave room for more

  TileFunction tile(int rows, int columns, bool unit_row) const {
    const int vectors = 2 * columns <= vector ? 0 : 1 + (columns - 1) / vector;
    return tiles[((rows - 1) * (kMaxVectors + 1) + vectors) * 2 + unit_row];
  }

  // Tiles of up to tile_columns on a B that is contiguous along K, by rows - 1.
  const TileFunction* strips = nullptr;
  int strip_rows = 0;

  void (*inner_rows)(const InnerRows<T>& rows, T* sums) = nullptr;

  // sums[j] = the chain over k in order of x[k * x_step] b[k * b_row + j], j < columns.
  void (*row_chain)(const T* b, std::int64_t b_row, const T* x, std::int64_t x_step, std::int64_t k,
                    std::int64_t columns, T* sums) = nullptr;

  // Copies src[i * row + k * col], i < rows, k < depth, into panels of tile_rows (A) or tile_columns
  // (B) rows, each one stored k by k. What lies beyond `rows` in the last panel is undefined.
  using PackFunction = void (*)(T* panels, const T* src, std::int64_t row, std::int64_t col,
                                std::int64_t rows, std::int64_t depth);
  PackFunction pack_a = nullptr, pack_b = nullptr;

  // c = activation(c + bias) over a tile; bias may be null.
  void (*finish)(T* c, std::int64_t c_row, int rows, int columns, const T* bias,
                 Activation activation) = nullptr;
};

struct GemmKernels {
  GemmFamily<float> f32;
  GemmFamily<double> f64;

  template <class T>
  const GemmFamily<T>& family() const {
    if constexpr (sizeof(T) == 8)
      return f64;
    else
      return f32;
  }
};

}  // namespace thalweg
