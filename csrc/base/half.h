// bfloat16 and float16 (IEEE 754 binary16) as bit patterns, to and from float.
//
// Rounding is to nearest, ties to even; a NaN stays one, of the same sign. Made of integer operations
// and one float addition (exact, or rounding as the format does), so that loops vectorise on every
// instruction set and give the same bits; no F16C or AVX512-BF16 is needed.
#pragma once

#include <cstdint>

#include "base/config.h"
#include "base/float_format.h"

namespace thalweg {

enum class Half : std::uint8_t { none, bf16, f16 };

inline namespace THALWEG_ISA {

struct Bfloat16 {
  static THALWEG_RULE float widen(std::uint16_t x) { return from_bits<float>(std::uint32_t{x} << 16); }

  static THALWEG_RULE std::uint16_t narrow(float x) {
    const std::uint32_t bits = to_bits(x), odd = (bits >> 16) & 1;
    const std::uint32_t rounded = (bits + 0x7fff + odd) >> 16, nan = ((bits >> 16) & 0x8000) | 0x7fc0;
    return static_cast<std::uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? nan : rounded);
  }
};

struct Float16 {
  static constexpr std::uint32_t kInfinity = 0x7c00, kRebias = (127 - 15) << 23;

  static THALWEG_RULE float widen(std::uint16_t x) {
    const std::uint32_t magnitude = std::uint32_t{x} & 0x7fff, shifted = magnitude << 13;
    const std::uint32_t sign = (std::uint32_t{x} & 0x8000) << 16;
    // A denormal is m * 2^-24: with the exponent of 2^-14 its bits are 2^-14 + m * 2^-24.
    constexpr std::uint32_t kSmallest = kRebias + (1U << 23);
    const std::uint32_t denormal =
        to_bits(from_bits<float>(shifted + kSmallest) - from_bits<float>(kSmallest));
    const std::uint32_t normal = shifted + kRebias, special = shifted | 0x7f800000;
    const std::uint32_t finite = magnitude < 0x0400 ? denormal : normal;
    return from_bits<float>(sign | (magnitude >= kInfinity ? special : finite));
  }

  static THALWEG_RULE std::uint16_t narrow(float x) {
    const std::uint32_t bits = to_bits(x) & 0x7fffffff, sign = (to_bits(x) >> 16) & 0x8000;
    // Adding 0.5 leaves the multiple of 2^-24 in the last bits, rounded.
    const std::uint32_t denormal = to_bits(from_bits<float>(bits) + 0.5F) - to_bits(0.5F);
    const std::uint32_t normal = (bits - kRebias + 0xfff + ((bits >> 13) & 1)) >> 13;  // carries to infinity
    const std::uint32_t special = bits > 0x7f800000 ? 0x7e00 : kInfinity;
    const std::uint32_t finite = bits < 0x38800000 ? denormal : normal;                 // 2^-14
    return static_cast<std::uint16_t>(sign | (bits >= 0x47800000 ? special : finite));  // 2^16
  }
};

// f(Bfloat16{}) or f(Float16{}).
template <class F>
THALWEG_RULE void with_half(Half format, const F& f) {
  if (format == Half::bf16)
    f(Bfloat16{});
  else
    f(Float16{});
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
