#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "cpu/kernels/gemm_pack.h"
#include "cpu/kernels/gemm_strip.h"
#include "cpu/kernels/gemm_vector.h"
#include "cpu/kernels/table.h"
#include "rules/elementwise.h"

namespace thalweg::THALWEG_ISA {
namespace {

// Rows and vectors of the largest tile: with the row of B and one broadcast it fills the registers,
// and has more than the eight independent chains that two FMA units of latency four need.
#if defined(__AVX512F__)
constexpr int kTileRows = 14;  // 28 + 2 + 1 of 32 registers
#elif defined(__AVX2__)
constexpr int kTileRows = 6;  // 12 + 2 + 1 of 16
#else
constexpr int kTileRows = 4;  // 8 + 2 + 1 and a product of 16
#endif
constexpr int kTileVectors = 2;
constexpr int kStripRows = kVectorBytes == 64 ? 8 : 4;  // beside a square of B in the registers

template <class T, int kVectors, bool kPartial>
struct Row {
  Vector<T> v[kVectors];

  THALWEG_RULE void load(const T* p, const Lanes<T>& last) {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j)
      v[j] =
          kPartial && j == kVectors - 1 ? last.load(p + j * kWidth<T>) : THALWEG_ISA::load(p + j * kWidth<T>);
  }

  THALWEG_RULE void store(T* p, const Lanes<T>& last) const {
#pragma GCC unroll 8
    for (int j = 0; j < kVectors; ++j) {
      if (kPartial && j == kVectors - 1)
        last.store(p + j * kWidth<T>, v[j]);
      else
        THALWEG_ISA::store(p + j * kWidth<T>, v[j]);
    }
  }
};

// kUnitRow: a_row is 1 (A packed, or transposed in memory), so that rows are constant displacements.
template <class T, int kRows, int kVectors, bool kUnitRow, bool kPartial>
__attribute__((always_inline)) inline void multiply(const GemmTile<T>& t) {
  const Lanes<T> last(t.columns - (kVectors - 1) * kWidth<T>);
  const std::int64_t a_row = kUnitRow ? 1 : t.a_row;
  const T *a = t.a, *b = t.b;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kVectors; ++j) __builtin_prefetch(t.c + i * t.c_row + j * kWidth<T>, 1);
  Row<T, kVectors, kPartial> sums[kRows] = {}, row;
  for (std::int64_t k = t.k; k > 0; --k) {
    row.load(b, last);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vector<T> x = broadcast(a[i * a_row]);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[i].v[j] = multiply_add<T>(x, row.v[j], sums[i].v[j]);
    }
    a += t.a_col;
    b += t.b_row;
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    T* c = t.c + i * t.c_row;
    if (t.accumulate) {
      row.load(c, last);
#pragma GCC unroll 8
      for (int j = 0; j < kVectors; ++j) sums[i].v[j] = row.v[j] + sums[i].v[j];
    }
    sums[i].store(c, last);
  }
}

template <class T, int kRows, int kVectors, bool kUnitRow>
void tile(const GemmTile<T>& t) {
  if (Lanes<T>::kFree || t.columns % kWidth<T> != 0)
    multiply<T, kRows, kVectors, kUnitRow, true>(t);
  else
    multiply<T, kRows, kVectors, kUnitRow, false>(t);
}

// Tiles of few rows are wider: they read B in longer runs, and keep as many chains in flight.
constexpr int vectors_of(int rows) {
  constexpr int kRegisters = kVectorBytes == 64 ? 32 : 16;
  return rows > 4 ? kTileVectors : std::clamp((kRegisters - 2) / (rows + 1), kTileVectors, 8);
}

template <class T, int kRows, int kVectors, bool kUnitRow>
constexpr typename GemmFamily<T>::TileFunction tile_or_null() {
  if constexpr (kVectors <= vectors_of(kRows))
    return tile<T, kRows, kVectors, kUnitRow>;
  else
    return nullptr;
}

template <class T, std::size_t... kIndex>
constexpr auto make_tiles(std::index_sequence<kIndex...>) {
  constexpr std::size_t kVectors = GemmFamily<T>::kMaxVectors;
  return std::array{tile_or_null<T, static_cast<int>(kIndex / (2 * kVectors)) + 1,
                                 static_cast<int>(kIndex / 2 % kVectors) + 1, kIndex % 2 == 1>()...};
}

template <class T, std::size_t... kIndex>
constexpr auto make_widest(std::index_sequence<kIndex...>) {
  return std::array{vectors_of(static_cast<int>(kIndex) + 1) * kWidth<T>...};
}

template <class T>
constexpr auto kTiles = make_tiles<T>(std::make_index_sequence<kTileRows * GemmFamily<T>::kMaxVectors * 2>{});
template <class T>
constexpr auto kWidest = make_widest<T>(std::make_index_sequence<kTileRows>{});

template <class T, std::size_t... kIndex>
constexpr auto make_strips(std::index_sequence<kIndex...>) {
  return std::array<typename GemmFamily<T>::TileFunction, kStripRows>{
      strip<T, static_cast<int>(kIndex) + 1>...};
}
template <class T>
constexpr auto kStrips = make_strips<T>(std::make_index_sequence<kStripRows>{});

template <class T>
void finish(T* c, std::int64_t c_row, int rows, int columns, const T* bias, Activation activation) {
  for (int i = 0; bias && i < rows; ++i)
#pragma GCC ivdep
    for (int j = 0; j < columns; ++j) c[i * c_row + j] += bias[j];
  Activations::for_each([&]<template <class> class Rule>(int index) {
    if (index != static_cast<int>(activation) || activation == Activation::identity) return;
    for (int i = 0; i < rows; ++i)
#pragma GCC ivdep
      for (int j = 0; j < columns; ++j) c[i * c_row + j] = Rule<T>{}(c[i * c_row + j]);
  });
}

template <class T>
void fill_family(GemmFamily<T>& family) {
  family.tile_rows = kTileRows;
  family.tile_columns = kTileVectors * kWidth<T>;
  family.vector = kWidth<T>;
  family.tiles = kTiles<T>.data();
  family.widest = kWidest<T>.data();
  family.strips = kStrips<T>.data();
  family.strip_rows = kStripRows;
  family.inner_blocks = inner_blocks<T>;
  family.pack_a = pack<T, kTileRows>;
  family.pack_b = pack<T, kTileVectors * kWidth<T>>;
  family.finish = finish<T>;
}

}  // namespace

void fill(GemmKernels& kernels) {
  fill_family(kernels.f32);
  fill_family(kernels.f64);
}

}  // namespace thalweg::THALWEG_ISA
