// The dynamic 8-bit map of Dettmers et al. 2022 (arXiv:2110.02861), for block-wise optimizer states:
// a block of kQuantBlock elements keeps its largest magnitude as a float, and each element a code for
// its fraction of that.
//
// Fractions fall into seven decades, 10^-7 to 1; decade d has 2^d (signed) or 2^(d+1) (unsigned) values
// in the middles of as many equal parts, and then there are 0 and 1. Signed codes are sign and magnitude,
// where -0 stands for 1; unsigned codes rise with the value.
//
// Inside a decade the map is linear, so that both ways are a multiply-add whose coefficients are looked
// up by decade: tables of eight, which a register holds. Why not a table of 256 values and a search:
// gathers and searches take two to four times as long.
#pragma once

#include <cstdint>

#include "base/config.h"
#include "base/float_format.h"

namespace thalweg {

inline constexpr int kQuantBlock = 256;

inline namespace THALWEG_ISA {

struct alignas(32) Table8 {
  float entry[8];
};

// The map is written for a number or a register of them; cpu/kernels/quantize.h has the registers.
struct OneLane {
  using Float = float;
  using Int = std::int32_t;
  static THALWEG_RULE float lookup(const Table8& table, std::int32_t index) { return table.entry[index & 7]; }
  static THALWEG_RULE float to_float(std::int32_t x) { return static_cast<float>(x); }
  static THALWEG_RULE std::int32_t truncate(float x) { return static_cast<std::int32_t>(x); }
  static THALWEG_RULE std::int32_t bits(float x) { return static_cast<std::int32_t>(to_bits(x)); }
  static THALWEG_RULE float from_int_bits(std::int32_t x) {
    return from_bits<float>(static_cast<std::uint32_t>(x));
  }
};

template <bool kSigned>
struct DynamicMap {
  static constexpr int kDecades = 7;
  static constexpr double start_of(int decade) {  // 10^(decade - 7)
    double start = 1e-7;
    for (int i = 0; i < decade; ++i) start *= 10;
    return start;
  }
  static constexpr double values_in(int decade) { return 1 << (kSigned ? decade : decade + 1); }

  // Value j of a decade with n values has the index n + j, and is (index + 1/2 - n*8/9) * 9 * start / n:
  // the first decade's index begins with 1 or 2, each other one's where the last one's ends.
  // Decade d is in entry d+1 of the tables by decade.
  static constexpr double slope_of(int decade) { return 9 * start_of(decade) / values_in(decade); }
  template <class F>
  static constexpr Table8 by_decade(float first, const F& f) {
    Table8 table{{first}};
    for (int d = 0; d < kDecades; ++d) table.entry[d + 1] = static_cast<float>(f(d));
    return table;
  }
  // By the exponent of index + 1/2, modulo 8. The entry of zero and one: 0.
  template <class F>
  static constexpr Table8 by_exponent(const F& f) {
    Table8 table{};
    for (int d = 0; d < kDecades; ++d)
      table.entry[(127 + d + (kSigned ? 0 : 1)) & 7] = static_cast<float>(f(d));
    return table;
  }

  static constexpr Table8 kValueSlope = by_exponent([](int d) { return slope_of(d); });
  static constexpr Table8 kValueOffset = by_exponent([](int d) { return -8 * start_of(d); });
  static constexpr Table8 kIndexSlope = by_decade(0, [](int d) { return 1 / slope_of(d); });
  static constexpr Table8 kIndexOffset = by_decade(0, [](int d) { return values_in(d) * 8 / 9; });
  static constexpr Table8 kLastIndex = by_decade(0, [](int d) { return 2 * values_in(d) - 1; });
  // Halfway between neighbours: a decade's first value and the last one below it.
  static constexpr Table8 kBegin =
      by_decade(2, [](int d) { return d == 0 ? 0 : start_of(d) * (1 + 1.8 / values_in(d)); });
  static constexpr float kTop = static_cast<float>(1 - 0.225 / values_in(kDecades - 1));
  static constexpr float kBottom = static_cast<float>(0.5 * start_of(0) * (1 + 4.5 / values_in(0)));
  static constexpr std::int32_t kOne = kSigned ? 0x80 : 255;

  template <class V>
  static THALWEG_RULE auto decode(typename V::Int code) -> typename V::Float {
    const typename V::Int index = kSigned ? code & 0x7f : code + 1;
    const typename V::Float middle = V::to_float(index) + 0.5F;
    const typename V::Int exponent = V::bits(middle) >> 23;
    typename V::Float value = middle * V::lookup(kValueSlope, exponent) + V::lookup(kValueOffset, exponent);
    if constexpr (kSigned) value = V::from_int_bits(V::bits(value) | ((code & 0x80) << 24));
    return code == kOne ? typename V::Float{} + 1 : value;
  }

  // The nearest value's code, for |x| <= 1. Unsigned: only 0 becomes 0, since a second moment that
  // vanished beside a first that did not would make a step of any size.
  template <class V>
  static THALWEG_RULE auto encode(typename V::Float x) -> typename V::Int {
    using Float = typename V::Float;
    using Int = typename V::Int;
    const Float magnitude = V::from_int_bits(V::bits(x) & 0x7fffffff);
    // The upper half of a float's bits rises with its logarithm: read as one, it is at most 0.0284
    // decades below. Put 0.719 decades up, its decade's entry is the one sought or the one below, since
    // decades begin 0 to 0.279 after their power of 10.
    constexpr std::int32_t kDecadesPerUnit = 2466;      // log10(2) / 128 * 2^20
    constexpr std::int32_t kOffset = 127 * 128 - 3282;  // 7.719 decades below 1
    Int entry = ((V::bits(magnitude) >> 16) - kOffset) * kDecadesPerUnit >> 20;
    entry = entry > 0 ? entry : Int{};
    const Int next = entry + 1;
    entry = magnitude >= V::lookup(kBegin, next) ? next : entry;
    const Float last = V::lookup(kLastIndex, entry);
    Float index = magnitude * V::lookup(kIndexSlope, entry) + V::lookup(kIndexOffset, entry);
    index = index < last ? index : last;  // NaN too
    if constexpr (kSigned) {
      const Int whole = V::truncate(index), code = x < 0 ? whole | 0x80 : whole;
      return magnitude < kBottom ? Int{} : x >= kTop ? Int{} + kOne : code;
    } else {
      constexpr auto kFirst = static_cast<float>(values_in(0));
      index = index < kFirst ? Float{} + kFirst : index;
      const Int code = magnitude >= kTop ? Int{} + kOne : V::truncate(index) - 1;
      return magnitude > 0 ? code : Int{};
    }
  }
};

}  // namespace THALWEG_ISA
}  // namespace thalweg
