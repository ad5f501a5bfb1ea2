// Products of bfloat16 by AVX512_BF16: each instruction multiplies pairs of k and adds them to 16 sums.
#include <array>
#include <utility>

#include "cpu/kernels/bf16_pack.h"
#include "cpu/kernels/gemm_bf16.h"

namespace thalweg::THALWEG_ISA {
namespace {

// 28 sums, two vectors of B and a broadcast pair of A fill the registers. As many instructions as the
// multiply-adds of a float32 tile, and twice their work.
constexpr int kRows = 14;
constexpr std::int64_t kBlock = 512;  // of k, summed in registers

THALWEG_RULE __m512bh load_pairs(const std::uint16_t* p) { return (__m512bh)_mm512_loadu_si512(p); }

THALWEG_RULE __m512bh broadcast_pair(const std::uint16_t* p) {
  int pair;
  std::memcpy(&pair, p, sizeof pair);
  return (__m512bh)_mm512_set1_epi32(pair);
}

template <int kTileRows, int kVectors>
THALWEG_RULE void multiply_slab(__m512 (&sums)[kTileRows][kVectors], const std::uint16_t* a,
                                std::int64_t a_row, const std::uint16_t* b, std::int64_t pairs) {
  for (std::int64_t pair = 0; pair < pairs; ++pair, a += 2, b += 32) {
    __m512bh row[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) row[j] = load_pairs(b + j * kTileWords);
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i) {
      const __m512bh x = broadcast_pair(a + i * a_row);
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sums[i][j] = _mm512_dpbf16_ps(sums[i][j], x, row[j]);
    }
  }
}

// kUnitRow: rows of a slab follow each other, so that they are constant displacements.
template <int kTileRows, int kVectors, bool kUnitRow>
void multiply(const Bf16Tile& t) {
  const std::int64_t a_row = kUnitRow ? kTileDepth : t.a_row;
  const std::uint16_t* b = t.b;
  for (std::int64_t block = 0; block < t.k; block += kBlock) {
    __m512 sums[kTileRows][kVectors] = {};
    const std::int64_t end = std::min(t.k, block + kBlock);
    for (std::int64_t k = block; k < end; k += kTileDepth, b += 2 * kTileWords) {
      const std::int64_t slab = k / kTileDepth, depth = t.slabs ? t.slabs[slab].depth : end - k;
      multiply_slab<kTileRows, kVectors>(sums, t.a_at(slab), a_row, b, (std::min(depth, kTileDepth) + 1) / 2);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kTileRows; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) {
        float* const c = t.c + i * t.c_row + 16 * j;
        const bool add = t.accumulate || block > 0;
        _mm512_storeu_ps(c, add ? _mm512_add_ps(_mm512_loadu_ps(c), sums[i][j]) : sums[i][j]);
      }
  }
}

template <bool kUnitRow, std::size_t... kIndex>
constexpr auto make_tiles(std::index_sequence<kIndex...>) {
  return std::array{std::array{multiply<kIndex + 1, 1, kUnitRow>, multiply<kIndex + 1, 2, kUnitRow>}...};
}
template <bool kUnitRow>
constexpr auto kTiles = make_tiles<kUnitRow>(std::make_index_sequence<kRows>{});

void tile(const Bf16Tile& t) {
  (t.a_row == kTileDepth ? kTiles<true> : kTiles<false>)[t.rows - 1][t.columns > 16](t);
}

void nothing() {}

}  // namespace

Bf16Kernels make_bf16_kernels() {
  Bf16Kernels kernels;
  kernels.name = "AVX512_BF16";
  kernels.rows = kRows;
  kernels.begin = kernels.end = nothing;
  kernels.tiles[1] = tile;
  fill_packs(kernels);
  return kernels;
}

}  // namespace thalweg::THALWEG_ISA
