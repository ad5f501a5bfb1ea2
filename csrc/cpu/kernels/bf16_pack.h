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
typedef std::uint16_t Pairs __attribute__((vector_size(64), may_alias));

// Magnitudes, lane by lane.
struct FloatMagnitudes {
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

// Of bfloat16 elements, 32 at a time: they are the upper halves of floats.
struct Bf16Magnitudes {
  Pairs low = Pairs{} - 1, high = {};

  THALWEG_RULE void add(Pairs bits) {
    const Pairs magnitude = bits & 0x7fff, less = magnitude - 1;
    low = low < less ? low : less;
    high = high > magnitude ? high : magnitude;
  }
  THALWEG_RULE Magnitudes merged() const {
    std::uint16_t smallest = 0xffff, largest = 0;
    for (int i = 0; i < 32; ++i) {
      smallest = std::min<std::uint16_t>(smallest, low[i]);
      largest = std::max<std::uint16_t>(largest, high[i]);
    }
    return {std::uint32_t{smallest} << 16 | 0xffff, std::uint32_t{largest} << 16};
  }
};

template <class T>
using Seen = std::conditional_t<sizeof(T) == 2, Bf16Magnitudes, FloatMagnitudes>;

template <class V, class T>
THALWEG_RULE V load_as(const T* x) {
  V v;
  std::memcpy(&v, x, sizeof v);
  return v;
}

// The next bfloat16 part of x, which is left with the remainder.
template <int kParts>
THALWEG_RULE Words take_part(Words& x) {
  const Words part = round_part(x);
  if constexpr (kParts > 1) x = (Words)((WordFloats)x - (WordFloats)(part << 16));
  return part;
}

// 32 contiguous k of 16 lines into [line][32], one plane for each part; zeros for those beyond `lines`.
template <class T, int kParts>
THALWEG_RULE void pack_lines(std::uint16_t* tile, std::int64_t part, const T* src, std::int64_t line,
                             std::int64_t lines, Seen<T>& seen) {
  Seen<T> own = seen;
  for (int i = 0; i < 16; ++i, src += line, tile += 32) {
    if constexpr (kParts == 0) {
      const Pairs bits = i < lines ? load_as<Pairs>(src) : Pairs{};
      own.add(bits);
      std::memcpy(tile, &bits, sizeof bits);
    } else {
      Words first = {}, second = {};
      if (i < lines) first = load_as<Words>(src), second = load_as<Words>(src + 16);
      own.add(first);
      own.add(second);
      for (int p = 0; p < kParts; ++p) {
        const HalfWords halves[2] = {__builtin_convertvector(take_part<kParts>(first), HalfWords),
                                     __builtin_convertvector(take_part<kParts>(second), HalfWords)};
        std::memcpy(tile + p * part, halves, sizeof halves);
      }
    }
  }
  seen = own;
}

// Two k of 16 contiguous lines into [line][2].
template <class T, int kParts>
THALWEG_RULE void pack_pair(std::uint16_t* to, std::int64_t part, const T* src, std::int64_t k,
                            Seen<T>& seen) {
  if constexpr (kParts == 0) {
    const Words even = __builtin_convertvector(load_as<HalfWords>(src), Words),
                odd = __builtin_convertvector(load_as<HalfWords>(src + k), Words), pairs = even | odd << 16;
    seen.add((Pairs)pairs);
    std::memcpy(to, &pairs, sizeof pairs);
  } else {
    Words even = load_as<Words>(src), odd = load_as<Words>(src + k);
    seen.add(even);
    seen.add(odd);
    for (int p = 0; p < kParts; ++p) {
      const Words low = take_part<kParts>(even), pairs = low | take_part<kParts>(odd) << 16;
      std::memcpy(to + p * part, &pairs, sizeof pairs);
    }
  }
}

// 32 k of kGroups times 16 contiguous lines. They are read across all groups before the next k: where
// rows of B lie a multiple of 4 KiB apart, a cache line that two groups share would not survive until the
// second.
template <class T, int kParts, int kGroups>
void pack_pairs(std::uint16_t* const* tiles, std::int64_t at, std::int64_t part, const T* src, std::int64_t k,
                Seen<T>* seen) {
  Seen<T> own[kGroups];
  std::copy_n(seen, kGroups, own);
  for (int i = 0; i < 16; ++i, at += 32, src += 2 * k)
#pragma GCC unroll 4
    for (int g = 0; g < kGroups; ++g)
      pack_pair<T, kParts>(tiles[g] + at, part, src + kTileLines * g, k, own[g]);
  std::copy_n(own, kGroups, seen);
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

// One slab.
template <class T, int kParts, bool kPairs>
void pack_slab(const Bf16Source& s, std::int64_t k, Seen<T>* seen) {
  constexpr int kMost = kPackLines / kTileLines;
  const T* const src = static_cast<const T*>(s.data) + k * s.k;
  const std::int64_t depth = std::min(kTileDepth, s.depth - k), at = k / kTileDepth * s.slab;
  const std::int64_t whole = depth == kTileDepth ? s.lines / kTileLines : 0;
  const bool by_pairs = s.line == 1 && s.k != 1;
  if (by_pairs && whole == kMost)
    pack_pairs<T, kParts, kMost>(s.tiles, at, s.part, src, s.k, seen);
  else
    for (std::int64_t g = 0; by_pairs && g < whole; ++g)
      pack_pairs<T, kParts, 1>(s.tiles + g, at, s.part, src + kTileLines * g, s.k, seen + g);
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
  Seen<T> lanes[kPackLines / kTileLines];
  for (std::int64_t k = 0; k < source.depth; k += kTileDepth) pack_slab<T, kParts, kPairs>(source, k, lanes);
  for (std::int64_t g = 0; g * kTileLines < source.lines; ++g) seen[g] = lanes[g].merged();
}

// The bits of 16 floats as bfloat16, as Bfloat16::narrow rounds them.
THALWEG_RULE HalfWords narrow_words(Words bits) {
  const Words nan = ((bits >> 16) & 0x8000) | 0x7fc0;
  return __builtin_convertvector((bits & 0x7fffffff) > 0x7f800000 ? nan : round_part(bits), HalfWords);
}

inline void narrow(const float* from, std::int64_t from_row, std::uint16_t* to, std::int64_t to_row,
                   std::int64_t rows, std::int64_t columns) {
  for (std::int64_t i = 0; i < rows; ++i, from += from_row, to += to_row) {
    std::int64_t j = 0;
    for (; j + 16 <= columns; j += 16) {
      const HalfWords halves = narrow_words(load_as<Words>(from + j));
      std::memcpy(to + j, &halves, sizeof halves);
    }
    for (; j < columns; ++j) to[j] = Bfloat16::narrow(from[j]);
  }
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
