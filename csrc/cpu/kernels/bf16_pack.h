// Packing of bfloat16 tiles: 16 lines (rows of A, columns of B) by 32 k, split, ordered, measured.
//
// A tile is read along whichever of line and k is contiguous in memory: `lines` order has 16 pairs of k
// for each line (A's layout), `pairs` order 16 lines for each pair of k (B's). The other order is a
// 16 x 16 transposition of 32-bit words away.
#pragma once

#include <cstring>
#include <type_traits>

#include "base/half.h"
#include "cpu/kernels/gemm_bf16.h"
#include "cpu/kernels/gemm_pack.h"

namespace thalweg {
inline namespace THALWEG_ISA {

// Sixteen 32-bit words, on every instruction set; and what fills half of them.
typedef std::uint32_t Words __attribute__((vector_size(64), may_alias));
typedef float WordFloats __attribute__((vector_size(64)));
typedef std::uint16_t HalfWords __attribute__((vector_size(32)));

// Magnitudes, lane by lane.
struct MagnitudeLanes {
  Words low = Words{} - 1, high = {};

  THALWEG_RULE void add(Words bits) {
    const Words magnitude = bits & 0x7fffffff, less = magnitude - 1;
    low = low < less ? low : less;
    high = high > magnitude ? high : magnitude;
  }
  THALWEG_RULE Magnitudes merged() const {
    Magnitudes all;
    for (int i = 0; i < 16; ++i) all.merge({low[i], high[i]});
    return all;
  }
};

// Sixteen elements as the bits of floats.
THALWEG_RULE Words load_bits(const float* x) {
  Words bits;
  std::memcpy(&bits, x, sizeof bits);
  return bits;
}
THALWEG_RULE Words load_bits(const std::uint16_t* x) {
  HalfWords half;
  std::memcpy(&half, x, sizeof half);
  return __builtin_convertvector(half, Words) << 16;
}

// The next bfloat16 part of x, which is left with the remainder. bfloat16 operands have but one.
template <int kParts>
THALWEG_RULE Words take_part(Words& x) {
  if constexpr (kParts == 0) return x >> 16;
  const Words part = round_part(x);
  if constexpr (kParts > 1) x = (Words)((WordFloats)x - (WordFloats)(part << 16));
  return part;
}

// 32 contiguous k of 16 lines into [line][32], one plane for each part; zeros for those beyond `lines`.
template <class T, int kParts>
THALWEG_RULE void pack_lines(std::uint16_t* tile, std::int64_t part, const T* src, std::int64_t line,
                             std::int64_t lines, MagnitudeLanes& seen) {
  for (int i = 0; i < 16; ++i, src += line, tile += 32) {
    Words first = {}, second = {};
    if (i < lines) first = load_bits(src), second = load_bits(src + 16);
    seen.add(first);
    seen.add(second);
    for (int p = 0; p < std::max(kParts, 1); ++p) {
      const HalfWords halves[2] = {__builtin_convertvector(take_part<kParts>(first), HalfWords),
                                   __builtin_convertvector(take_part<kParts>(second), HalfWords)};
      std::memcpy(tile + p * part, halves, sizeof halves);
    }
  }
}

// Two k of 16 contiguous lines into [line][2].
template <class T, int kParts>
THALWEG_RULE void pack_pair(std::uint16_t* to, std::int64_t part, const T* src, std::int64_t k,
                            MagnitudeLanes& seen) {
  Words even = load_bits(src), odd = load_bits(src + k);
  seen.add(even);
  seen.add(odd);
  for (int p = 0; p < std::max(kParts, 1); ++p) {
    const Words low = take_part<kParts>(even), pairs = low | take_part<kParts>(odd) << 16;
    std::memcpy(to + p * part, &pairs, sizeof pairs);
  }
}

// A tile's 16 x 16 pairs, lines to pairs order or back.
inline void transpose_words(std::uint16_t* tile) {
  float* const words = reinterpret_cast<float*>(tile);  // moved as bits
  if constexpr (kWidth<float> == 16) {
    Vector<float> rows[kWidth<float>];
    for (int i = 0; i < kWidth<float>; ++i) rows[i] = load(words + 16 * i);
    transpose<float>(rows);
    for (int i = 0; i < kWidth<float>; ++i) store(words + 16 * i, rows[i]);
  } else {
    std::uint32_t from[16][16], to[16][16];
    std::memcpy(from, tile, sizeof from);
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 16; ++j) to[j][i] = from[i][j];
    std::memcpy(tile, to, sizeof to);
  }
}

// One slab. Contiguous lines are read across all groups before the next k: where rows of B lie a
// multiple of 4 KiB apart, a cache line that two groups share would not survive until the second.
template <class T, int kParts, bool kPairs>
void pack_slab(const Bf16Source& s, std::int64_t k, MagnitudeLanes* seen) {
  const T* const src = static_cast<const T*>(s.data) + k * s.k;
  const std::int64_t depth = std::min(kTileDepth, s.depth - k), at = k / kTileDepth * s.slab;
  const std::int64_t whole = depth == kTileDepth ? s.lines / kTileLines : 0;
  const bool by_pairs = s.line == 1 && s.k != 1;
  if (by_pairs)
    for (int i = 0; i < 16; ++i)
      for (std::int64_t g = 0; g < whole; ++g)
        pack_pair<T, kParts>(s.tiles[g] + at + 32 * i, s.part, src + 2 * i * s.k + 16 * g, s.k, seen[g]);
  for (std::int64_t g = 0; g * kTileLines < s.lines; ++g) {
    const T* const first = src + g * kTileLines * s.line;
    std::uint16_t* const tile = s.tiles[g] + at;
    if (depth == kTileDepth && s.k == 1) {
      pack_lines<T, kParts>(tile, s.part, first, s.line, s.lines - g * kTileLines, seen[g]);
    } else if (g >= whole || !by_pairs) {
      T gathered[16 * 32] = {};
      for (std::int64_t i = 0; i < std::min(kTileLines, s.lines - g * kTileLines); ++i)
        for (std::int64_t j = 0; j < depth; ++j) gathered[i * 32 + j] = first[i * s.line + j * s.k];
      pack_lines<T, kParts>(tile, s.part, gathered, 32, kTileLines, seen[g]);
    }
    const bool pairs = g < whole && by_pairs;
    for (int p = 0; pairs != kPairs && p < std::max(kParts, 1); ++p) transpose_words(tile + p * s.part);
  }
}

template <class T, int kParts, bool kPairs>
void pack_bf16(const Bf16Source& source, Magnitudes* seen) {
  MagnitudeLanes lanes[kPackLines / kTileLines];
  for (std::int64_t k = 0; k < source.depth; k += kTileDepth) pack_slab<T, kParts, kPairs>(source, k, lanes);
  for (std::int64_t g = 0; g * kTileLines < source.lines; ++g) seen[g] = lanes[g].merged();
}

inline void narrow(const float* from, std::uint16_t* to, std::int64_t count) {
  for (std::int64_t i = 0; i < count; ++i) to[i] = Bfloat16::narrow(from[i]);
}

inline void fill_packs(Bf16Kernels& kernels) {
  kernels.narrow = narrow;
  kernels.pack_a[0] = pack_bf16<std::uint16_t, 0, false>;
  kernels.pack_a[1] = pack_bf16<float, 1, false>;
  kernels.pack_a[2] = pack_bf16<float, 2, false>;
  kernels.pack_a[3] = pack_bf16<float, 3, false>;
  kernels.pack_b[0] = pack_bf16<std::uint16_t, 0, true>;
  kernels.pack_b[1] = pack_bf16<float, 1, true>;
  kernels.pack_b[2] = pack_bf16<float, 2, true>;
  kernels.pack_b[3] = pack_bf16<float, 3, true>;
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
