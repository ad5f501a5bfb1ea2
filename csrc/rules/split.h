// A float32 as a sum of bfloat16 parts: x1 = bf16(x), x2 = bf16(x - x1), x3 = bf16(x - x1 - x2).
//
// Henry, Tang & Heinecke, Leveraging the bfloat16 Artificial Intelligence Datatype for
// Higher-Precision Computations, ARITH 2019. For |x| in [2^e, 2^(e+1)) the first remainder is at most
// 2^(e-8), the second 2^(e-17), and both are exact; the second has 7 bits, so that three parts of 8 bits
// are x itself.
#pragma once

#include <cstdint>

#include "base/config.h"

namespace thalweg {

// Largest and smallest magnitudes of a panel, as bit patterns: what decides whether a product of
// bfloat16 parts has the result class of multiply-adds. Zeros have no say in `low`.
struct Magnitudes {
  std::uint32_t low = 0xffffffff;  // the smallest one, less 1
  std::uint32_t high = 0;

  THALWEG_RULE void merge(const Magnitudes& other) {
    low = low < other.low ? low : other.low;
    high = high > other.high ? high : other.high;
  }
  int lowest_exponent() const { return static_cast<int>((low + 1) >> 23) - 127; }  // 2^this <= |x|
  int highest_exponent() const { return static_cast<int>(high >> 23) - 126; }      // |x| < 2^this
  bool all_zero() const { return high == 0; }
};

// Terms of `k` products of a row and a column, which meet no underflow that matters and no overflow.
//
// Above: a product of parts is at most 2^(1/64) |a||b|, so that no partial sum in any order reaches
// 2^127; bf16(x) is finite below 2^127. Below: products of parts are flushed to zero under 2^-126; with
// |a|, |b| >= 2^-100 every part is normal, and with |a||b| >= 2^-96 a flush loses 2^-30 |a||b| at most.
// Infinities and NaN have the highest exponent, denormals the lowest. Without `keep_tiny` a denormal may
// count as zero where that loses less than 2^-102.
inline bool splits_safely(const Magnitudes& a, const Magnitudes& b, std::int64_t k, bool keep_tiny) {
  const int terms = 64 - __builtin_clzll(static_cast<unsigned long long>(k));
  if (a.high >= 0x7f000000 || b.high >= 0x7f000000) return false;
  if (a.highest_exponent() + b.highest_exponent() + terms + 1 > 127) return false;
  if (a.all_zero() || b.all_zero()) return true;
  const int x = a.lowest_exponent(), y = b.lowest_exponent();
  if (!keep_tiny)
    return (x >= -126 || b.highest_exponent() <= 24) && (y >= -126 || a.highest_exponent() <= 24);
  return x >= -100 && y >= -100 && x + y >= -96;
}

inline namespace THALWEG_ISA {

// Bits of a float32 to those of bf16(x), to nearest, ties to even; of vectors of bits too. Why not
// Bfloat16::narrow: panels with a NaN are computed otherwise.
template <class Bits>
THALWEG_RULE Bits round_part(Bits bits) {
  return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
