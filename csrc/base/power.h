// pow(a, b) as exp(b log|a|), with the logarithm in more than twice the precision of the result: an
// error of the exponent is multiplied by up to 745 on its way into the result.
//
// float goes through double; double through sums of two doubles (Dekker 1971), no FMA needed.
#pragma once

#include "base/math.h"

namespace thalweg {
inline namespace THALWEG_ISA {

// The unevaluated sum high + low, |low| <= ulp(high) / 2.
struct Pair {
  double high, low;
};

THALWEG_RULE Pair exact_sum(double a, double b) {
  const double sum = a + b, part = sum - a;
  return {sum, (a - (sum - part)) + (b - part)};
}

THALWEG_RULE Pair exact_product(double a, double b) {  // |a|, |b| below 2^500
  constexpr double kSplitter = 0x1p27 + 1;
  const double a_scaled = kSplitter * a, a1 = a_scaled - (a_scaled - a), a2 = a - a1;
  const double b_scaled = kSplitter * b, b1 = b_scaled - (b_scaled - b), b2 = b - b1;
  const double product = a * b;
  return {product, ((a1 * b1 - product) + a1 * b2 + a2 * b1) + a2 * b2};
}

THALWEG_RULE Pair multiply(Pair a, Pair b) {
  const Pair p = exact_product(a.high, b.high);
  const double low = p.low + (a.high * b.low + a.low * b.high), high = p.high + low;
  return {high, low - (high - p.high)};
}

// log(x) for finite x > 0, to about 2^-64 relative: s = (m - 1) / (m + 1),
// log(m) = s (2 + z (2/3 + z (2/5 + …))) with z = s² <= 0.0295.
THALWEG_RULE Pair log_pair(double x) {
  const bool denormal = x < Format<double>::kMinNormal;
  const Split<double> parts = split(denormal ? x * 0x1p54 : x);
  const double k = parts.k - (denormal ? 54.0 : 0.0), f = parts.m - 1.0;
  const Pair divisor = exact_sum(1.0, parts.m);
  const double quotient = f / divisor.high;
  const Pair back = exact_product(quotient, divisor.high);
  const Pair s{quotient, (((f - back.high) - back.low) - quotient * divisor.low) / divisor.high};
  const Pair z = multiply(s, s);
  const double rest = z.high * polynomial(z.high, 2.0 / 5, 2.0 / 7, 2.0 / 9, 2.0 / 11, 2.0 / 13, 2.0 / 15,
                                          2.0 / 17, 2.0 / 19, 2.0 / 21);
  Pair series = exact_sum(0x1.5555555555555p-1, rest);
  series.low += 0x1.5555555555555p-55;
  const Pair w = multiply(z, series);
  Pair factor = exact_sum(2.0, w.high);
  factor.low += w.low;
  const Pair log_m = multiply(s, factor);
  const Pair sum = exact_sum(k * Format<double>::kLn2High, log_m.high);
  return exact_sum(sum.high, sum.low + (log_m.low + k * Format<double>::kLn2Low));
}

// |a|^b for finite nonzero a and |b| <= 2^70.
THALWEG_RULE double power_of_magnitude(double magnitude, double b) {
  const Pair log = log_pair(magnitude), p = exact_product(b, log.high);
  const double clamped = clamp_exp(p.high);
  const double low = p.high == clamped ? p.low + b * log.low : 0.0;
  const ReducedExp<double> e = reduce_exp(clamped);
  return scale(1.0 + (e.tail + (low + low * e.tail)), e.n);
}
THALWEG_RULE float power_of_magnitude(float magnitude, float b) {
  return static_cast<float>(exp(static_cast<double>(b) * log(static_cast<double>(magnitude))));
}

template <class T>
THALWEG_RULE bool is_integer(T x) {
  constexpr T kIntegers = Format<T>::kTwoToMantissa;  // from here on there are no others
  const T magnitude = abs(x);
  return magnitude >= kIntegers || (magnitude + kIntegers) - kIntegers == magnitude;
}

// C's and NumPy's special cases: pow(a, 0) = pow(1, b) = 1 whatever the other is, also NaN; a negative
// finite base needs an integer exponent, and an odd one hands on the sign.
template <class T>
THALWEG_RULE T pow(T a, T b) {
  const T inf = infinity<T>(), magnitude = abs(a);
  const T limit = (magnitude == T(0)) == (b > T(0)) ? T(0) : inf;  // of 0 and infinity
  const bool ordinary = magnitude > T(0) && magnitude < inf;
  constexpr T kHuge = T(0x1p70);  // leaves 0, 1 or infinity of every magnitude
  const T bounded = b > kHuge ? kHuge : b < -kHuge ? -kHuge : b;
  const T size = ordinary ? power_of_magnitude(magnitude, bounded) : a != a || b != b ? a + b : limit;
  const T signed_size = is_integer(b) && !is_integer(b * T(0.5)) ? copysign(size, a) : size;
  const T power = a < T(0) && ordinary && !is_integer(b) ? inf - inf : signed_size;
  return a == T(1) || b == T(0) ? T(1) : power;
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
