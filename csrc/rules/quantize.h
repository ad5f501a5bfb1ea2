// The dynamic 8-bit map of Dettmers et al. 2022 (arXiv:2110.02861), for block-wise optimizer states:
// a block of kQuantBlock elements keeps its largest magnitude as a float, and each element a code for
// its fraction of that.
//
// Fractions fall into seven decades, 10^-7 to 1; decade d has 2^d (signed) or 2^(d+1) (unsigned) values
// in the middles of as many equal parts, and then there are 0 and 1. Signed codes are sign and magnitude,
// where -0 stands for 1; unsigned codes rise with the value. Why not a table: gathers and searches do
// not vectorise on SSE2, and the map is a formula of the code's own bits.
#pragma once

#include <cstdint>
#include <utility>

#include "base/config.h"
#include "base/float_format.h"

namespace thalweg {

inline constexpr int kQuantBlock = 256;

inline namespace THALWEG_ISA {

constexpr double decade_start(int decade) {  // 10^(decade - 7)
  double start = 1e-7;
  for (int i = 0; i < decade; ++i) start *= 10;
  return start;
}

template <bool kSigned>
struct DynamicMap {
  static constexpr int kDecades = 7;
  static constexpr double values_in(int decade) { return 1 << (kSigned ? decade : decade + 1); }
  // Halfway between neighbours: a decade's first value and the last one below it, the last and 1.
  static constexpr double midpoint(int decade) {
    return decade_start(decade) * (1 + 1.8 / values_in(decade));
  }
  static constexpr float kTop = static_cast<float>(1 - 0.225 / values_in(kDecades - 1));
  static constexpr float kBottom = static_cast<float>(0.5 * decade_start(0) * (1 + 4.5 / values_in(0)));

  // Value j of a decade with n values has the index n + j; (index + 1/2) / n is a float's mantissa m in
  // [1, 2), and the value 10^decade * 1e-6 * (0.9 m - 0.8).
  static THALWEG_RULE float decode(std::uint8_t code) {
    const std::int32_t index = kSigned ? code & 0x7f : code + 1;
    const std::uint32_t bits = to_bits(static_cast<float>(index) + 0.5F);
    const std::uint32_t decade = (bits >> 23) - (kSigned ? 127 : 128);
    const float mantissa = from_bits<float>((bits & 0x007fffff) | 0x3f800000);
    float power = decade & 1 ? 1e-5F : 1e-6F;
    power *= decade & 2 ? 100.0F : 1.0F;
    power *= decade & 4 ? 1e4F : 1.0F;
    const float value = power * (0.9F * mantissa - 0.8F);
    const float magnitude = index > (kSigned ? 0 : 1) ? value : 0.0F;
    constexpr std::int32_t kOne = kSigned ? 0x80 : 255;
    const std::uint32_t sign = kSigned ? std::uint32_t{code} << 24 & 0x80000000 : 0;
    return code == kOne ? 1.0F : from_bits<float>(to_bits(magnitude) | sign);
  }

  // The nearest value's code, for |x| <= 1. Unsigned: only 0 becomes 0, since a second moment that
  // vanished beside a first that did not would make a step of any size.
  static THALWEG_RULE std::uint8_t encode(float x) {
    const float magnitude = x < 0 ? -x : x;
    float n = static_cast<float>(values_in(0)), slope = slope_in(0);
    pick(magnitude, n, slope, std::make_integer_sequence<int, kDecades - 1>{});
    float index = magnitude * slope + n * static_cast<float>(8.0 / 9);
    index = index >= n ? index : n;  // NaN too
    index = index < 2 * n ? index : 2 * n - 1;
    const auto whole = static_cast<std::int32_t>(index);
    if constexpr (kSigned) {
      const std::int32_t negative = whole | 0x80, positive = magnitude >= kTop ? 0x80 : whole;
      return static_cast<std::uint8_t>(magnitude < kBottom ? 0 : x < 0 ? negative : positive);
    } else {
      const std::int32_t code = magnitude >= kTop ? 255 : whole - 1;
      return static_cast<std::uint8_t>(magnitude > 0 ? code : 0);
    }
  }

 private:
  // index = n + n * (x / 10^(decade-6) - 0.1) / 0.9
  static constexpr float slope_in(int decade) {
    return static_cast<float>(values_in(decade) / (9 * decade_start(decade)));
  }
  template <int... kDecade>
  static THALWEG_RULE void pick(float x, float& n, float& slope, std::integer_sequence<int, kDecade...>) {
    const auto choose = [&](float start, float n_above, float slope_above) {
      n = x >= start ? n_above : n;
      slope = x >= start ? slope_above : slope;
    };
    (choose(static_cast<float>(midpoint(kDecade + 1)), static_cast<float>(values_in(kDecade + 1)),
            slope_in(kDecade + 1)),
     ...);
  }
};

}  // namespace THALWEG_ISA
}  // namespace thalweg
