// Blocks of 8-bit states to float32 and back, a register at a time.
//
// Why not left to the vectoriser: it makes a gather of a lookup in a table of eight, and GCC 12 a dozen
// instructions of a conversion between bytes and int32.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#include "base/math.h"
#include "rules/quantize.h"

namespace thalweg {
inline namespace THALWEG_ISA {

#if defined(__AVX2__)
#if defined(__AVX512F__)
inline constexpr int kFloats = 16;
#else
inline constexpr int kFloats = 8;
#endif
typedef float Floats __attribute__((vector_size(kFloats * sizeof(float))));
typedef std::int32_t Ints __attribute__((vector_size(kFloats * sizeof(std::int32_t))));

struct ManyLanes {
  using Float = Floats;
  using Int = Ints;
  static THALWEG_RULE Floats lookup(const Table8& table, Ints index) {
    const __m256 eight = _mm256_load_ps(table.entry);
#if defined(__AVX512F__)
    const Floats entries = _mm512_maskz_broadcast_f32x8(0xFFFF, eight);  // without a mask GCC 12 warns
#else
    const Floats entries = eight;
#endif
    return __builtin_shuffle(entries, index);
  }
  static THALWEG_RULE Floats to_float(Ints x) { return __builtin_convertvector(x, Floats); }
  static THALWEG_RULE Ints truncate(Floats x) { return __builtin_convertvector(x, Ints); }
  static THALWEG_RULE Ints bits(Floats x) { return reinterpret_cast<Ints>(x); }
  static THALWEG_RULE Floats from_int_bits(Ints x) { return reinterpret_cast<Floats>(x); }

  static THALWEG_RULE Ints load(const std::uint8_t* codes) {
#if defined(__AVX512F__)
    return reinterpret_cast<Ints>(
        _mm512_maskz_cvtepu8_epi32(0xFFFF, _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes))));
#else
    return reinterpret_cast<Ints>(
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes))));
#endif
  }
  static THALWEG_RULE void store(Ints x, std::uint8_t* codes) {
#if defined(__AVX512F__)
    const __m128i bytes = _mm512_maskz_cvtepi32_epi8(0xFFFF, reinterpret_cast<__m512i>(x));
    std::memcpy(codes, &bytes, kFloats);
#else
    const __m256i pairs = _mm256_packus_epi32(reinterpret_cast<__m256i>(x), __m256i{});
    const __m256i bytes = _mm256_packus_epi16(pairs, __m256i{});
    const __m128i joined =
        _mm_unpacklo_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256(bytes, 1));
    std::memcpy(codes, &joined, kFloats);
#endif
  }
};
#endif

template <bool kSigned>
void dequantize(const std::uint8_t* __restrict codes, float absmax, std::int64_t n, float* __restrict x) {
  using Map = DynamicMap<kSigned>;
  std::int64_t i = 0;
#if defined(__AVX2__)  // without a lookup in a register there is nothing to gain
  for (; i + kFloats <= n; i += kFloats) {
    const Floats value = Map::template decode<ManyLanes>(ManyLanes::load(codes + i)) * absmax;
    std::memcpy(x + i, &value, sizeof value);
  }
#endif
  for (; i < n; ++i) x[i] = Map::template decode<OneLane>(codes[i]) * absmax;
}

// Returns the largest magnitude: as integers, the bits of magnitudes are in order, NaN on top.
template <bool kSigned>
float quantize(const float* __restrict x, std::int64_t n, std::uint8_t* __restrict codes) {
  using Map = DynamicMap<kSigned>;
  std::int32_t largest = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t bits = OneLane::bits(abs(x[i]));
    largest = bits > largest ? bits : largest;
  }
  const float absmax = OneLane::from_int_bits(largest);
  const float inverse = absmax >= Format<float>::kMinNormal ? 1 / absmax : 0;
  std::int64_t i = 0;
#if defined(__AVX2__)
  for (; i + kFloats <= n; i += kFloats) {
    Floats value;
    std::memcpy(&value, x + i, sizeof value);
    ManyLanes::store(Map::template encode<ManyLanes>(value * inverse), codes + i);
  }
#endif
  for (; i < n; ++i) codes[i] = static_cast<std::uint8_t>(Map::template encode<OneLane>(x[i] * inverse));
  return absmax;
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
