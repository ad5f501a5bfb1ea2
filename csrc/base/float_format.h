// float and double as bit patterns, and the constants that base/math.h builds on.
#pragma once

#include <cstdint>

#include "base/config.h"

namespace thalweg {
inline namespace THALWEG_ISA {

template <class T>
struct Format;
template <>
struct Format<float> {
  using Bits = std::uint32_t;
  static constexpr int kMantissaBits = 23, kBias = 127;
  static constexpr float kShift = 0x1.8p23F;        // x + kShift rounds |x| < 2^22 to an integer
  static constexpr float kTwoToMantissa = 0x1p23F;  // from here on every float is an integer
  static constexpr float kMinNormal = 0x1p-126F;
  static constexpr float kExpMin = -104.0F, kExpMax = 89.0F;  // 0 and infinity beyond
  static constexpr float kLog2e = 0x1.715476p+0F;
  static constexpr float kLn2High = 0x1.62e4p-1F, kLn2Low = 0x1.7f7d1cp-20F;  // n * high is exact
};
template <>
struct Format<double> {
  using Bits = std::uint64_t;
  static constexpr int kMantissaBits = 52, kBias = 1023;
  static constexpr double kShift = 0x1.8p52;
  static constexpr double kTwoToMantissa = 0x1p52;
  static constexpr double kMinNormal = 0x1p-1022;
  static constexpr double kExpMin = -746.0, kExpMax = 710.0;
  static constexpr double kLog2e = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;
};

// --- bit patterns ----------------------------------------------------------------------------

template <class T>
THALWEG_RULE typename Format<T>::Bits to_bits(T x) {
  return __builtin_bit_cast(typename Format<T>::Bits, x);
}

template <class T>
THALWEG_RULE T from_bits(typename Format<T>::Bits bits) {
  return __builtin_bit_cast(T, bits);
}

template <class T>
inline constexpr typename Format<T>::Bits kSignBit = typename Format<T>::Bits{1} << (8 * sizeof(T) - 1);

template <class T>
THALWEG_RULE T abs(T x) {
  return from_bits<T>(to_bits(x) & ~kSignBit<T>);
}

template <class T>
THALWEG_RULE T copysign(T magnitude, T sign) {
  return from_bits<T>((to_bits(magnitude) & ~kSignBit<T>) | (to_bits(sign) & kSignBit<T>));
}

template <class T>
THALWEG_RULE T infinity() {
  return from_bits<T>(((typename Format<T>::Bits{1} << (8 * sizeof(T) - 1 - Format<T>::kMantissaBits)) - 1)
                      << Format<T>::kMantissaBits);
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
