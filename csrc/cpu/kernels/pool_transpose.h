// Planes side by side, and back: transpositions of 16 planes by as many elements as a register holds.
#pragma once

#include "cpu/kernels/gemm_transpose.h"
#include "cpu/kernels/pool.h"

namespace thalweg {
inline namespace THALWEG_ISA {

// f(i) for pieces of `piece` elements that cover [0, n), n >= piece; the last overlaps the one before.
template <class F>
THALWEG_RULE void for_pieces(std::int64_t n, std::int64_t piece, const F& f) {
  std::int64_t i = 0;
  for (; i + piece <= n; i += piece) f(i);
  if (i < n) f(n - piece);
}

// Too few elements for a register.
template <class E>
void gather_few(const E* const* planes, std::int64_t n, E* block) {
  for (std::int64_t p = 0; p < kPlanes; ++p)
    for (std::int64_t i = 0; i < n; ++i) block[i * kPlanes + p] = planes[p][i];
}

template <class E>
void scatter_few(const E* block, std::int64_t n, std::int64_t count, E* const* planes) {
  for (std::int64_t p = 0; p < count; ++p)
    for (std::int64_t i = 0; i < n; ++i) planes[p][i] = block[i * kPlanes + p];
}

template <class E>
void gather_planes(const E* const* planes, std::int64_t n, E* block) {
  constexpr int w = kWidth<E>;
  if (n < w) return gather_few(planes, n, block);
  Vector<E> columns[w];
  for (std::int64_t first = 0; first < kPlanes; first += w)
    for_pieces(n, w, [&](std::int64_t i) {
      load_transposed(planes + first, i, columns);
      for (int j = 0; j < w; ++j) store(block + (i + j) * kPlanes + first, columns[j]);
    });
}

template <class E>
void scatter_planes(const E* block, std::int64_t n, std::int64_t count, E* const* planes) {
  constexpr int w = kWidth<E>;
  if (n < w) return scatter_few(block, n, count, planes);
  Vector<E> columns[w];
  for (std::int64_t first = 0; first < count; first += w) {
    const std::int64_t filled = std::min<std::int64_t>(w, count - first);
    for_pieces(n, w, [&](std::int64_t i) {
      const E* rows[w];
      for (int j = 0; j < w; ++j) rows[j] = block + (i + j) * kPlanes;
      load_transposed(rows, first, columns);
      for (std::int64_t j = 0; j < filled; ++j) store(planes[first + j] + i, columns[j]);
    });
  }
}

// 16 x 16 bytes: four perfect shuffles of the 256 put bit i of an index where bit i + 4 was.
THALWEG_RULE void transpose_bytes(__m128i* rows) {
  for (int round = 0; round < 4; ++round) {
    __m128i shuffled[16];
    for (int i = 0; i < 8; ++i) {
      shuffled[2 * i] = _mm_unpacklo_epi8(rows[i], rows[i + 8]);
      shuffled[2 * i + 1] = _mm_unpackhi_epi8(rows[i], rows[i + 8]);
    }
    for (int i = 0; i < 16; ++i) rows[i] = shuffled[i];
  }
}

inline void gather_bytes(const std::uint8_t* const* planes, std::int64_t n, std::uint8_t* block) {
  if (n < 16) return gather_few(planes, n, block);
  for_pieces(n, 16, [&](std::int64_t i) {
    __m128i rows[16];
    for (int p = 0; p < 16; ++p) rows[p] = _mm_loadu_si128((const __m128i*)(planes[p] + i));
    transpose_bytes(rows);
    for (int j = 0; j < 16; ++j) _mm_storeu_si128((__m128i*)(block + (i + j) * kPlanes), rows[j]);
  });
}

inline void scatter_bytes(const std::uint8_t* block, std::int64_t n, std::int64_t count,
                          std::uint8_t* const* planes) {
  if (n < 16) return scatter_few(block, n, count, planes);
  for_pieces(n, 16, [&](std::int64_t i) {
    __m128i rows[16];
    for (int j = 0; j < 16; ++j) rows[j] = _mm_loadu_si128((const __m128i*)(block + (i + j) * kPlanes));
    transpose_bytes(rows);
    for (std::int64_t p = 0; p < count; ++p) _mm_storeu_si128((__m128i*)(planes[p] + i), rows[p]);
  });
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
