#include <algorithm>
#include <array>
#include <type_traits>
#include <utility>

#include "cpu/kernels/gemm_pack.h"
#include "cpu/kernels/gemm_strip.h"
#include "cpu/kernels/gemm_tile.h"
#include "cpu/kernels/gemm_vector.h"
#include "cpu/kernels/gemm_vector_product.h"
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

// Tiles of few rows are wider: they read B in longer runs, and keep as many chains in flight.
constexpr int vectors_of(int rows) {
  constexpr int kRegisters = kVectorBytes == 64 ? 32 : 16;
  return rows > 4 ? kTileVectors : std::clamp((kRegisters - 2) / (rows + 1), kTileVectors, 8);
}

template <class T, int kRows, int kVectors, bool kUnitRow>
constexpr typename GemmFamily<T>::TileFunction tile_or_null() {
  if constexpr (kVectors == 0 && kVectorBytes != 64)
    return tile<T, kRows, 1, kUnitRow>;
  else if constexpr (kVectors <= vectors_of(kRows))
    return tile<T, kRows, kVectors, kUnitRow>;
  else
    return nullptr;
}

template <class T, std::size_t... kIndex>
constexpr auto make_tiles(std::index_sequence<kIndex...>) {
  constexpr std::size_t kVectors = GemmFamily<T>::kMaxVectors + 1;
  return std::array{tile_or_null<T, static_cast<int>(kIndex / (2 * kVectors)) + 1,
                                 static_cast<int>(kIndex / 2 % kVectors), kIndex % 2 == 1>()...};
}

template <class T, std::size_t... kIndex>
constexpr auto make_widest(std::index_sequence<kIndex...>) {
  return std::array{vectors_of(static_cast<int>(kIndex) + 1) * kWidth<T>...};
}

template <class T>
constexpr auto kTiles =
    make_tiles<T>(std::make_index_sequence<kTileRows*(GemmFamily<T>::kMaxVectors + 1) * 2>{});
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
  family.inner_rows = inner_rows<T>;
  family.row_chain = row_chain<T>;
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
