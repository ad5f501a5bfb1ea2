// Products by multiply-adds, and how products start: launch_fma() for any type, launch_scheme() for float32.
#pragma once

#include "cuda/product_mma.cuh"

namespace thalweg::cuda {

// --- multiply-adds ----------------------------------------------------------------------------

template <class T>
struct alignas(16) Pack {  // one 16-byte load from shared memory
  static constexpr int kSize = 16 / sizeof(T);
  T values[kSize];
};

// A thread holds kTile/16 squared elements of C, in packs of neighbours: pack i of its rows starts at
// tile row (16 i + threadIdx.x / 16) * Pack::kSize, columns alike.
template <class T, int kTile>
struct Registers {
  static constexpr int kSide = kTile / 16, kPack = Pack<T>::kSize, kPacks = kSide / kPack;
  T sums[kSide][kSide];

  static __device__ int position(unsigned thread, int i) {
    return (i / kPack * 16 + static_cast<int>(thread)) * kPack + i % kPack;
  }
  static __device__ void load(T (&values)[kSide], const T* panel_row, unsigned thread) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const auto pack = *reinterpret_cast<const Pack<T>*>(panel_row + position(thread, i * kPack));
#pragma unroll
      for (int k = 0; k < kPack; ++k) values[i * kPack + k] = pack.values[k];
    }
  }
};

template <class P, int kTile>
__global__ void __launch_bounds__(kProductThreads) multiply_fma(__grid_constant__ Argument<P> p) {
  using T = typename P::Value;
  using R = Registers<T, kTile>;
  using ReaderA = typename decltype(p.a)::template Reader<kTile>;
  using ReaderB = typename decltype(p.b)::template Reader<kTile>;
  constexpr int kWidth = kTile + R::kPack;
  THALWEG_SHARED(T, a, [2][kPanelDepth][kWidth]);
  THALWEG_SHARED(T, b, [2][kPanelDepth][kWidth]);
  THALWEG_SHARED(typename ReaderA::Shared, a_shared, [1]);
  THALWEG_SHARED(typename ReaderB::Shared, b_shared, [1]);
  const auto tile = Tile<T>::template of_block<kTile>(p);
  const ReaderA reader_a(p.a, a_shared[0], tile.a, tile.row, p.m);
  const ReaderB reader_b(p.b, b_shared[0], tile.b, tile.column, p.n);
  const unsigned row_thread = threadIdx.x / 16, column_thread = threadIdx.x % 16;
#pragma unroll 1
  for (int block = tile.first_block; block < tile.last_block; ++block) {
    R registers = {};
    for_each_panel(p, tile, reader_a, reader_b, a, b, p.blocks.begin(block), p.blocks.begin(block + 1),
                   [&](const auto& pa, const auto& pb, int depth) {
#pragma unroll 1
                     for (int k = 0; k < depth; ++k) {  // not into the zeros beyond: -0 plus those is 0
                       T x[R::kSide], y[R::kSide];
                       R::load(x, pa[k], row_thread);
                       R::load(y, pb[k], column_thread);
#pragma unroll
                       for (int i = 0; i < R::kSide; ++i)
#pragma unroll
                         for (int j = 0; j < R::kSide; ++j)
                           registers.sums[i][j] = multiply_add(x[i], y[j], registers.sums[i][j]);
                     }
                   });
    const bool first = block == tile.first_block;
#pragma unroll
    for (int i = 0; i < R::kSide; ++i) {
      const std::int64_t row = tile.row + R::position(row_thread, i);
      T* c = tile.c + p.c_row(row);
      asm volatile(
          "" ::
              : "memory");  // one row's loads and addresses at a time: all of them do not fit in registers
#pragma unroll
      for (int j = 0; j < R::kSide; ++j)
        store(p, c, row, tile.column + R::position(column_thread, j), registers.sums[i][j], first);
    }
  }
  if (!finishes(p)) return;
#pragma unroll 1
  for (int e = 0; e < R::kSide * R::kSide; ++e)
    finish_stored(p, tile, tile.row + R::position(row_thread, e / R::kSide),
                  tile.column + R::position(column_thread, e % R::kSide));
}

// --- launches ---------------------------------------------------------------------------------

template <class P>
void launch_product(void (*kernel)(Argument<P>), P p, int tile, Stream stream) {
  p.row_tiles = ceil_div(p.m, tile);
  p.column_tiles = ceil_div(p.n, tile);
  launch(kernel, blocks_for(p.row_tiles * p.column_tiles * p.batch.elements() * p.splits, 1), kProductThreads,
         0, stream, p);
}

// Large tiles do more arithmetic per byte; small ones fill the chip when there are few.
template <class P>
void launch_fma(const P& p, Stream stream) {
  constexpr std::int64_t kEnoughTiles = 256;
  if constexpr (sizeof(typename P::Value) == 4)
    if (ceil_div(p.m, 128) * ceil_div(p.n, 128) * p.batch.elements() * p.splits >= kEnoughTiles)
      return launch_product<P>(multiply_fma<P, 128>, p, 128, stream);
  launch_product<P>(multiply_fma<P, 64>, p, 64, stream);
}

// float32 in the given scheme.
template <class P>
void launch_scheme(const P& p, GemmScheme scheme, Stream stream) {
  switch (scheme) {
    case GemmScheme::fma:
      return launch_fma(p, stream);
    case GemmScheme::tf32x3:
      return launch_product<P>(multiply_mma<P, Tf32x3>, p, kMmaTile, stream);
    case GemmScheme::bf16:
      return launch_product<P>(multiply_mma<P, Bf16>, p, kMmaTile, stream);
  }
}

}  // namespace thalweg::cuda
