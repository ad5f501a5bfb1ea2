// Products C = activation(C? + A B + bias) as a kernel computes them, whatever A and B are: matrices in
// memory (gemm.cu), or what the kernel of a convolution sees (conv.cu).
//
// A thread block computes a square tile of C. Panels of A and B pass through shared memory, k-major and
// two deep: the next ones are copied while the present ones are multiplied. K falls into blocks, each a
// chain of multiply-adds from zero, whose sums are added in order: the bits of the CPU's FMA
// instruction sets, where the blocks are theirs and C has more than one column.
#pragma once

#include <cstdint>
#include <type_traits>

#include "base/integer.h"
#include "cuda/activation.cuh"
#include "cuda/families.h"
#include "cuda/launch.cuh"
#include "cuda/layout.cuh"

namespace thalweg::cuda {

constexpr int kProductThreads = 256;
constexpr int kPanelDepth = 16;  // of K in shared memory

// K in blocks of equal size, as in cpu/gemm.cpp, whose bits depend on it.
struct EqualBlocks {
  std::int64_t k, depth, count;

  template <class T>
  static EqualBlocks of(std::int64_t k) {
    constexpr std::int64_t kDepth = 1536 / static_cast<std::int64_t>(sizeof(T));
    const std::int64_t count = ceil_div(k, kDepth) > 1 ? ceil_div(k, kDepth) : 1;
    return {k, ceil_div(k, count), count};
  }
  THALWEG_HOST_DEVICE std::int64_t begin(int block) const { return block * depth < k ? block * depth : k; }
};

// Rows of C at equal distance.
struct EqualRows {
  std::int64_t step;
  THALWEG_HOST_DEVICE std::int64_t operator()(std::int64_t row) const { return row * step; }
};

// Offsets of a batch's A, B, C and bias.
using ProductBatch = Layout<4>;

// Operands are Strided<T> below, or another type with a Reader like it. Where `splits` exceeds 1, there
// are as many as blocks of K: each goes to a C of its own, c_split from the one before.
template <class T, class A, class B, class Rows = EqualRows, class Blocks = EqualBlocks>
struct Product {
  using Value = T;
  std::int64_t m, n, row_tiles, column_tiles, splits = 1, c_split = 0;
  Blocks blocks;  // of K
  ProductBatch batch;
  A a;
  B b;
  T* c;
  Rows c_row;
  std::int64_t c_col;
  const T* bias = nullptr;
  std::int64_t bias_stride = 0;
  Activation activation = Activation::identity;
  bool accumulate = false;
};

// The part of a product that one thread block computes.
template <class T>
struct Tile {
  std::int64_t row, column;
  int first_block, last_block;  // of K
  std::int64_t a, b;            // offsets of the batch
  T* c;                         // at (0, 0)
  const T* bias;

  template <int kTile, class P>
  static __device__ Tile of_block(const P& p) {
    const std::int64_t tiles = p.row_tiles * p.column_tiles, id = blockIdx.x % tiles;
    const std::int64_t rest = blockIdx.x / tiles, split = p.splits > 1 ? rest % p.splits : 0;
    const auto at = p.batch.offsets(p.splits > 1 ? rest / p.splits : rest);
    return {id / p.column_tiles * kTile,
            id % p.column_tiles * kTile,
            static_cast<int>(split),
            static_cast<int>(p.splits > 1 ? split + 1 : p.blocks.count),
            at.of[0],
            at.of[1],
            p.c + (p.splits > 1 ? split * p.c_split : 0) + at.of[2],
            p.bias ? p.bias + at.of[3] : nullptr};
  }
};

template <class T, int kWidth>
using Panel = T[kPanelDepth][kWidth];

// Element e of a panel that a thread loads: neighbouring threads read neighbours in memory, along K where
// `k_first`; each thread walks along one axis.
template <int kTile>
struct PanelWalk {
  static constexpr int kElements = kTile * kPanelDepth / kProductThreads;
  int i, k, i_step, k_step;

  explicit __device__ PanelWalk(bool k_first) {
    const int thread = static_cast<int>(threadIdx.x);
    i = k_first ? thread / kPanelDepth : thread % kTile;
    k = k_first ? thread % kPanelDepth : thread / kTile;
    i_step = k_first ? kProductThreads / kPanelDepth : 0;
    k_step = k_first ? 0 : kProductThreads / kTile;
  }
  __device__ void next() { i += i_step, k += k_step; }
};

// A matrix in memory.
template <class T>
struct Strided {
  const T* data;
  std::int64_t along, deep;  // strides of rows (columns, in B), and of K

  // Loads panels of the rows from `first` on, for one thread block.
  template <int kTile>
  struct Reader {
    struct Shared {};
    static constexpr bool kPrepares = false;
    const Strided& matrix;
    const T* data;

    __device__ Reader(const Strided& m, Shared&, std::int64_t offset, std::int64_t first, std::int64_t)
        : matrix(m), data(m.data + offset + first * m.along) {}
    __device__ void prepare(std::int64_t, std::int64_t, int) const {}

    // panel[k][i] = element (first + i, begin + k), 0 for i >= rows and beyond k = end.
    template <int kWidth>
    __device__ void load(Panel<T, kWidth>& panel, std::int64_t rows, std::int64_t begin, std::int64_t end,
                         int) const {
      PanelWalk<kTile> at(matrix.deep == 1);
      const T* from = data + at.i * matrix.along + (begin + at.k) * matrix.deep;
      const std::int64_t step = at.i_step * matrix.along + at.k_step * matrix.deep;
#pragma unroll 1
      for (int e = 0; e < PanelWalk<kTile>::kElements; ++e) {
        const bool inside = at.i < rows && begin + at.k < end;
        copy_async<sizeof(T)>(&panel[at.k][at.i], inside ? from : matrix.data,
                              inside ? static_cast<int>(sizeof(T)) : 0);
        at.next(), from += step;
      }
    }
  };
};

// Calls multiply(panel of A, panel of B, depth) for the panels of k = begin … end - 1 in order.
template <class P, class T, class ReaderA, class ReaderB, int kWidth, class Multiply>
__device__ void for_each_panel(const P& p, const Tile<T>& tile, const ReaderA& reader_a,
                               const ReaderB& reader_b, Panel<T, kWidth> (&a)[2], Panel<T, kWidth> (&b)[2],
                               std::int64_t begin, std::int64_t end, const Multiply& multiply) {
  const auto prepare = [&](std::int64_t k, int buffer) {
    reader_a.prepare(k, end, buffer);
    reader_b.prepare(k, end, buffer);
  };
  const auto load = [&](std::int64_t k, int buffer) {
    if (k < end) {
      reader_a.load(a[buffer], p.m - tile.row, k, end, buffer);
      reader_b.load(b[buffer], p.n - tile.column, k, end, buffer);
    }
    commit_copies();
  };
  prepare(begin, 0);
  prepare(begin + kPanelDepth, 1);
  if constexpr (ReaderA::kPrepares || ReaderB::kPrepares) barrier();
  load(begin, 0);
  int buffer = 0;
#pragma unroll 1
  for (std::int64_t k = begin; k < end; k += kPanelDepth, buffer ^= 1) {
    load(k + kPanelDepth, buffer ^ 1);
    wait_copies<1>();
    barrier();
    prepare(k + 2 * kPanelDepth, buffer);  // all have loaded the panel at k
    multiply(a[buffer], b[buffer], end - k < kPanelDepth ? static_cast<int>(end - k) : kPanelDepth);
    barrier();
  }
}

// Adds the sum of a block of K to C (i, j); `row` points to C (i, 0).
template <class P, class T>
__device__ void store(const P& p, T* row, std::int64_t i, std::int64_t j, T sum, bool first) {
  if (i >= p.m || j >= p.n) return;
  T& c = row[j * p.c_col];
  c = p.accumulate || !first ? c + sum : sum;
}

// Adds the bias to C (i, j), which this thread has stored, and activates it. Why not in store(): that is
// unrolled over all of a thread's elements, and seven activations each take the compiler minutes. Not
// inlined: it costs the loops before it registers.
template <class P, class T>
__device__ __noinline__ void finish_stored(const P& p, const Tile<T>& tile, std::int64_t i, std::int64_t j) {
  if (i >= p.m || j >= p.n) return;
  T& c = tile.c[p.c_row(i) + j * p.c_col];
  c = activate(p.activation, tile.bias ? c + tile.bias[j * p.bias_stride] : c);
}
template <class P>
__device__ bool finishes(const P& p) {
  return p.bias || p.activation != Activation::identity;
}

}  // namespace thalweg::cuda
