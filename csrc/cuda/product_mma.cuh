// Products on the matrix units, for product.cuh: float32 operands rounded to bf16, or as three products of
// tf32 parts.
#pragma once

#include "cuda/product_panels.cuh"

namespace thalweg::cuda {

constexpr int kMmaTile = 128, kMmaPad = 8;  // the padding spreads a fragment's loads over all banks
constexpr int kWarpRows = 64, kWarpColumns = 32, kRowFragments = kWarpRows / 16,
              kColumnFragments = kWarpColumns / 8;
using MmaPanel = float[kPanelDepth][kMmaTile + kMmaPad];

// Fragments of one mma of depth kDepth from k-major panels: a(i, k) and b(k, j) around the lane's place.
struct Bf16 {  // operands rounded to bf16, one product
  static constexpr int kDepth = 16;
  static __device__ std::uint32_t pair(const MmaPanel& panel, int k, int i) {
    return static_cast<std::uint32_t>(to_bf16(panel[k][i])) |
           static_cast<std::uint32_t>(to_bf16(panel[k + 1][i])) << 16;
  }
  struct A {
    std::uint32_t values[4];
    __device__ A(const MmaPanel& panel, int k, int row, int group, int place)
        : values{pair(panel, k + place * 2, row + group), pair(panel, k + place * 2, row + group + 8),
                 pair(panel, k + place * 2 + 8, row + group),
                 pair(panel, k + place * 2 + 8, row + group + 8)} {}
  };
  struct B {
    std::uint32_t values[2];
    __device__ B(const MmaPanel& panel, int k, int column, int group, int place)
        : values{pair(panel, k + place * 2, column + group), pair(panel, k + place * 2 + 8, column + group)} {
    }
  };
  static __device__ void multiply(float (&d)[4], const A& a, const B& b) { mma_bf16(d, a.values, b.values); }
};

// x = high + low, both tf32: high high + high low + low high has float32's accuracy but for the low low
// part, 2^-22 of the product (Ootomo & Yokota 2022).
struct Tf32x3 {
  static constexpr int kDepth = 8;
  static __device__ void split(float x, std::uint32_t& high, std::uint32_t& low) {
    high = to_tf32(x);
    low = to_tf32(x - __builtin_bit_cast(float, high));
  }
  struct A {
    std::uint32_t high[4], low[4];
    __device__ A(const MmaPanel& panel, int k, int row, int group, int place) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        split(panel[k + place + i / 2 * 4][row + group + i % 2 * 8], high[i], low[i]);
    }
  };
  struct B {
    std::uint32_t high[2], low[2];
    __device__ B(const MmaPanel& panel, int k, int column, int group, int place) {
#pragma unroll
      for (int i = 0; i < 2; ++i) split(panel[k + place + i * 4][column + group], high[i], low[i]);
    }
  };
  static __device__ void multiply(float (&d)[4], const A& a, const B& b) {  // smallest first
    mma_tf32(d, a.low, b.high);
    mma_tf32(d, a.high, b.low);
    mma_tf32(d, a.high, b.high);
  }
};

// Tensor cores truncate their sums, so they only sum a panel; the panels are summed in registers.
template <class Scheme>
__device__ void multiply_panel(float (&sums)[kRowFragments][kColumnFragments][4], const MmaPanel& a,
                               const MmaPanel& b, int row, int column) {
  const int group = static_cast<int>(lane_index() / 4), place = static_cast<int>(lane_index() % 4);
#pragma unroll
  for (int i = 0; i < kRowFragments; ++i) {
    float panel_sums[kColumnFragments][4] = {};
#pragma unroll
    for (int k = 0; k < kPanelDepth; k += Scheme::kDepth) {
      const typename Scheme::A x(a, k, row + i * 16, group, place);
#pragma unroll
      for (int j = 0; j < kColumnFragments; ++j)
        Scheme::multiply(panel_sums[j], x, typename Scheme::B(b, k, column + j * 8, group, place));
    }
#pragma unroll
    for (int j = 0; j < kColumnFragments; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] += panel_sums[j][e];
  }
}

template <class P, class Scheme>
__global__ void __launch_bounds__(kProductThreads, 1) multiply_mma(__grid_constant__ Argument<P> p) {
  using ReaderA = typename decltype(p.a)::template Reader<kMmaTile>;
  using ReaderB = typename decltype(p.b)::template Reader<kMmaTile>;
  THALWEG_SHARED(float, a, [2][kPanelDepth][kMmaTile + kMmaPad]);
  THALWEG_SHARED(float, b, [2][kPanelDepth][kMmaTile + kMmaPad]);
  THALWEG_SHARED(typename ReaderA::Shared, a_shared, [1]);
  THALWEG_SHARED(typename ReaderB::Shared, b_shared, [1]);
  const auto tile = Tile<float>::of_block<kMmaTile>(p);
  const ReaderA reader_a(p.a, a_shared[0], tile.a, tile.row, p.m);
  const ReaderB reader_b(p.b, b_shared[0], tile.b, tile.column, p.n);
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int row = warp / 4 * kWarpRows, column = warp % 4 * kWarpColumns;
  float sums[kRowFragments][kColumnFragments][4] = {};
  for_each_panel(
      p, tile, reader_a, reader_b, a, b, p.blocks.begin(tile.first_block), p.blocks.begin(tile.last_block),
      [&](const auto& pa, const auto& pb, int) { multiply_panel<Scheme>(sums, pa, pb, row, column); });
  const auto row_of = [&](int i, int e) {
    return tile.row + row + i * 16 + static_cast<int>(lane_index() / 4) + e % 4 / 2 * 8;
  };
  const auto column_of = [&](int j, int e) {
    return tile.column + column + j * 8 + static_cast<int>(lane_index() % 4) * 2 + e % 2;
  };
#pragma unroll
  for (int i = 0; i < kRowFragments; ++i)
#pragma unroll
    for (int j = 0; j < kColumnFragments; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        store(p, tile.c + p.c_row(row_of(i, e)), row_of(i, e), column_of(j, e), sums[i][j][e], true);
  if (!finishes(p)) return;
#pragma unroll 1
  for (int n = 0; n < kRowFragments * kColumnFragments * 4; ++n)
    finish_stored(p, tile, row_of(n / (4 * kColumnFragments), n), column_of(n / 4 % kColumnFragments, n));
}

}  // namespace thalweg::cuda
