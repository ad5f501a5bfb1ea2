// How a matrix product is cut into blocks: by shape, strides and the kernels' tiles.
#pragma once

#include <cstdint>

#include "base/integer.h"
#include "cpu/gemm.h"
#include "cpu/kernels/gemm.h"

namespace thalweg {

// Elements of K in a block at most: the tile's panel of B stays in L1, or nearly. The same for every
// instruction set, since it decides the bits.
template <class T>
constexpr std::int64_t kDepth = 1536 / static_cast<std::int64_t>(sizeof(T));
constexpr double kGemmTaskFlops = 3e5;  // a few microseconds

// How a product is cut: the same for all products of a batch.
struct Blocking {
  std::int64_t rows, columns;      // of A and of B in a block
  std::int64_t depth, depths;      // K elements in a block, and blocks
  bool pack_a, pack_b, scatter_c;  // which operands cannot be used where they lie
  bool apart;                      // each thread packs its own columns of B
  bool strip;                      // few rows on a B that is contiguous along K
  bool split;                      // tasks are blocks of K, for there are few of anything else
};

template <class T>
Blocking choose_blocking(const GemmProblem& p, const GemmFamily<T>& kernels);

// Rows in tiles of nearly equal height: a last tile of one or two rows would wait for its few chains.
class RowCut {
 public:
  RowCut(std::int64_t rows, std::int64_t most) {
    const std::int64_t tiles = ceil_div(rows, most);
    height_ = rows / tiles;
    higher_ = rows % tiles * (height_ + 1);
  }

  // Of the tile that begins at row i.
  int height(std::int64_t i) const { return static_cast<int>(height_ + (i < higher_)); }

 private:
  std::int64_t height_, higher_;  // rows in tiles of one row more
};

}  // namespace thalweg
