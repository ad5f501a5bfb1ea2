// Elementary functions for rules: branch-free, so that the loop around them vectorises, and made of
// +, -, *, /, square root, compares and bit patterns alone, so that SSE2, AVX2, AVX-512 and CUDA give
// the same bits (contraction is off everywhere; only the payload and sign of a NaN are left open).
//
// Largest errors in ulp, measured on every eleventh float against a correct double, on a
// million doubles of each range against quadruple precision (tests/test_math.py keeps them below 1.75):
//              exp   expm1  log   log1p  tanh  sigmoid  erf   pow
//     float    0.92  1.62   0.83  0.82   1.42  1.70     1.43  0.51
//     double   0.91  1.49   0.84  0.85   1.42  1.54     1.35  1.11
//
// Why not libm: its results depend on the version installed, and a call stops the vectoriser.
// Why not tables: gathers cost more than the few extra terms and need memory on a device.
#pragma once

#include <type_traits>

#include "base/float_format.h"

namespace thalweg {
inline namespace THALWEG_ISA {

// --- arithmetic ------------------------------------------------------------------------------

THALWEG_RULE float sqrt(float x) {
#ifdef __CUDA_ARCH__
  return __fsqrt_rn(x);
#else
  return __builtin_sqrtf(x);
#endif
}
THALWEG_RULE double sqrt(double x) {
#ifdef __CUDA_ARCH__
  return __dsqrt_rn(x);
#else
  return __builtin_sqrt(x);
#endif
}

// The larger (smaller) of both; NaN if either is one; the first of equals, as in NumPy.
template <class T>
THALWEG_RULE T maximum(T a, T b) {
  return a >= b || a != a ? a : b;
}
template <class T>
THALWEG_RULE T minimum(T a, T b) {
  return a <= b || a != a ? a : b;
}

// c0 + c1 x + c2 x² + … by Horner's rule.
template <class T>
THALWEG_RULE T polynomial(T, T c0) {
  return c0;
}
template <class T, class... Higher>
THALWEG_RULE T polynomial(T x, T c0, Higher... higher) {
  return c0 + x * polynomial(x, higher...);
}

// --- exponential -----------------------------------------------------------------------------

// 2^n for an integer n whose power is normal: n, shifted, becomes the exponent field.
template <class T>
THALWEG_RULE T power_of_two(T n) {
  using F = Format<T>;
  const auto field = to_bits(n + F::kShift) << F::kMantissaBits;
  return from_bits<T>(field + (typename F::Bits{F::kBias} << F::kMantissaBits));
}

template <class T>
THALWEG_RULE T round_to_integer(T x) {
  return (x + Format<T>::kShift) - Format<T>::kShift;
}

// x * 2^n in two steps, for results beyond the normal range at either end.
template <class T>
THALWEG_RULE T scale(T x, T n) {
  const T half = round_to_integer(n * T(0.5));
  return x * power_of_two(half) * power_of_two(n - half);
}

// x = n ln 2 + r with |r| <= ln 2 / 2 and tail = exp(r) - 1, for kExpMin <= x <= kExpMax.
// Minimax polynomials (Remez); relative error of exp(r) 2^-28 and 2^-58.
template <class T>
struct ReducedExp {
  T n, tail;
};
template <class T>
THALWEG_RULE T exp_quadratic_tail(T r) {  // (exp(r) - 1 - r) / r²
  if constexpr (std::is_same_v<T, float>)
    return polynomial(r, 0x1p-1F, 0x1.55548ep-3F, 0x1.55545ep-5F, 0x1.123b92p-7F, 0x1.6db480p-10F);
  else
    return polynomial(r, 0x1.000000000000cp-1, 0x1.5555555555561p-3, 0x1.555555554ffffp-5,
                      0x1.111111110d5a3p-7, 0x1.6c16c185b3c9fp-10, 0x1.a01a01bb12c03p-13,
                      0x1.a019966df1e5bp-16, 0x1.71dddf66302c0p-19, 0x1.28b06f0275ffcp-22,
                      0x1.af861ec31904ep-26);
}
template <class T>
THALWEG_RULE ReducedExp<T> reduce_exp(T x) {
  using F = Format<T>;
  const T n = round_to_integer(x * F::kLog2e);
  const T high = x - n * F::kLn2High, low = n * F::kLn2Low, r = high - low;
  const T lost = (high - r) - low;  // what r rounds away
  return {n, r + (r * r * exp_quadratic_tail(r) + lost)};
}

template <class T>
THALWEG_RULE T clamp_exp(T x) {  // NaN stays
  using F = Format<T>;
  const T above = x < F::kExpMin ? F::kExpMin : x;
  return above > F::kExpMax ? F::kExpMax : above;
}

template <class T>
THALWEG_RULE T exp(T x) {
  const ReducedExp<T> e = reduce_exp(clamp_exp(x));
  return scale(T(1) + e.tail, e.n);
}

// The same where the result is a normal number for certain: no clamps, one scaling.
template <class T>
THALWEG_RULE T exp_normal(T x) {
  const ReducedExp<T> e = reduce_exp(x);
  return (T(1) + e.tail) * power_of_two(e.n);
}

// exp(x) - 1 without cancellation; the sign of zero stays.
template <class T>
THALWEG_RULE T expm1(T x) {
  const ReducedExp<T> e = reduce_exp(clamp_exp(x));
  const T power = power_of_two(e.n - T(1));  // half the power, which may be 2^1024
  const T small = T(2) * (power * e.tail + (power - T(0.5)));
  const T result = e.n > T(Format<T>::kMantissaBits + 2)    ? scale(T(1) + e.tail, e.n)
                   : e.n < T(-Format<T>::kMantissaBits - 2) ? T(-1)
                                                            : small;
  return copysign(e.n == T(0) ? e.tail : result, x);
}

// --- logarithm -------------------------------------------------------------------------------

// log(2^k (1 + f)) + c with sqrt(1/2) <= 1 + f < sqrt(2): s = f / (2 + f), log(1 + f) = 2 atanh(s),
// arranged as in FreeBSD's e_log.c so that f itself stays exact.
template <class T>
THALWEG_RULE T log_core(T k, T f, T c) {
  using F = Format<T>;
  const T s = f / (T(2) + f), z = s * s, half_square = T(0.5) * f * f;
  T r;
  if constexpr (std::is_same_v<T, float>)
    r = z * polynomial(z, 0xaaaaaa.0p-24F, 0xccce13.0p-25F, 0x91e9ee.0p-25F, 0xf89e26.0p-26F);
  else
    r = z * polynomial(z, 6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
                       2.222219843214978396e-01, 1.818357216161805012e-01, 1.531383769920937332e-01,
                       1.479819860511658591e-01);
  return k * F::kLn2High - ((half_square - (s * (half_square + r) + (k * F::kLn2Low + c))) - f);
}

// x = 2^k m with sqrt(1/2) <= m < sqrt(2), for finite normal x > 0. The exponent becomes a float by
// way of its bits, since SSE2 and AVX2 convert no 64-bit integers.
template <class T>
struct Split {
  T k, m;
};
template <class T>
THALWEG_RULE Split<T> split(T x) {
  using F = Format<T>;
  using Bits = typename F::Bits;
  constexpr Bits kOne = Bits{F::kBias} << F::kMantissaBits;
  constexpr Bits kRootHalf = sizeof(T) == 4 ? Bits{0x3f3504f3U} : Bits(0x3fe6a09e667f3bcdULL);
  constexpr Bits kMantissa = (Bits{1} << F::kMantissaBits) - 1;
  const Bits shifted = to_bits(x) + (kOne - kRootHalf);
  const T biased = from_bits<T>((shifted >> F::kMantissaBits) | to_bits(F::kTwoToMantissa));
  return {biased - (F::kTwoToMantissa + T(F::kBias)), from_bits<T>((shifted & kMantissa) + kRootHalf)};
}

// The answer for x outside the positive finite numbers, `result` inside.
template <class T>
THALWEG_RULE T log_limits(T x, T result) {
  const T inf = infinity<T>();
  const T positive = x < inf ? result : x;  // +inf and NaN are their own logarithms
  return x > T(0) ? positive : x == T(0) ? -inf : x - x + (x < T(0) ? inf - inf : T(0));
}

template <class T>
THALWEG_RULE T log(T x) {
  using F = Format<T>;
  constexpr T kLift = T(typename F::Bits{1} << (F::kMantissaBits + 2));
  const bool denormal = x < F::kMinNormal;
  const Split<T> parts = split(denormal ? x * kLift : x);
  const T k = parts.k - (denormal ? T(F::kMantissaBits + 2) : T(0));
  return log_limits(x, log_core(k, parts.m - T(1), T(0)));
}

// log(1 + x) without the rounding of 1 + x; the sign of zero stays.
template <class T>
THALWEG_RULE T log1p(T x) {
  const T u = T(1) + x;
  const Split<T> parts = split(u);
  const bool direct = parts.k == T(0);
  const T f = direct ? x : parts.m - T(1);
  const T lost = x >= T(1) ? T(1) - (u - x) : x - (u - T(1));
  const T result = log_core(parts.k, f, direct ? T(0) : lost / u);
  return x == T(0) ? x : log_limits(u, result);
}

// --- hyperbolic tangent, logistic function, error function -----------------------------------

// |x| < 0.55: x + x³ P(x²), minimax (Remez) to 2^-29 and 2^-60. Beyond: 1 - 2 / (exp(2|x|) + 1).
template <class T>
THALWEG_RULE T tanh(T x) {
  constexpr T kSaturated = T(sizeof(T) == 4 ? 10 : 20);
  const T magnitude = abs(x), bounded = magnitude > kSaturated ? kSaturated : magnitude, z = x * x;
  T p;
  if constexpr (std::is_same_v<T, float>)
    p = polynomial(z, -0x1.55554cp-2F, 0x1.110d3cp-3F, -0x1.b92bcap-5F, 0x1.595680p-6F, -0x1.9bb7acp-8F);
  else
    p = polynomial(z, -0x1.555555555554fp-2, 0x1.11111111107fbp-3, -0x1.ba1ba1b98248cp-5,
                   0x1.664f485a6cf7bp-6, -0x1.226e2f32cd2efp-7, 0x1.d6d2a01e21f60p-9, -0x1.7d900b2d7fe6dp-10,
                   0x1.348563253208ep-11, -0x1.e9806c924c498p-13, 0x1.5da2463552391p-14,
                   -0x1.477e6553cd522p-16);
  const T beyond = T(1) - T(2) / (exp_normal(bounded + bounded) + T(1));
  return copysign(magnitude < T(0.55) ? magnitude + magnitude * z * p : beyond, x);
}

// 1 / (1 + e) or, for x < 0, e / (1 + e) with e = exp(-|x|), so that both tails keep their relative
// accuracy. What 1 + e rounds away is made good in the numerator, before that is rounded.
template <class T>
THALWEG_RULE T sigmoid(T x) {
  const ReducedExp<T> r = reduce_exp(clamp_exp(-abs(x)));
  const T e = scale(T(1) + r.tail, r.n), sum = T(1) + e;
  const T lost = (e - (sum - T(1))) * (T(1) - T(0.5) * e);
  return (x < T(0) ? scale(T(1) + (r.tail - lost), r.n) : T(1)) / sum;
}

// |x| < 1: x + x P(x²). Beyond: 1 - exp(Q(|x|)), where Q approximates log(erfc) with weight erfc.
// Minimax polynomials (Remez); absolute error below 2^-29 and 2^-59.
template <class T>
THALWEG_RULE T erf(T x) {
  constexpr T kSaturated = T(sizeof(T) == 4 ? 3.93 : 5.93);
  const T magnitude = abs(x), t = magnitude > kSaturated ? kSaturated : magnitude, z = x * x;
  T p, q;
  if constexpr (std::is_same_v<T, float>) {
    p = polynomial(z, 0x1.06eba8p-3F, -0x1.81273ep-2F, 0x1.ce2d20p-4F, -0x1.b7fbb6p-6F, 0x1.5419fap-8F,
                   -0x1.a485f8p-11F, 0x1.4ae4c6p-14F);
    q = polynomial(t, -0x1.72e6bep-12F, -0x1.2085b2p+0F, -0x1.46c584p-1F, -0x1.a60a84p-4F, 0x1.654224p-6F,
                   -0x1.814cdcp-9F, 0x1.852d4ep-13F);
  } else {
    p = polynomial(z, 0x1.06eba8214db69p-3, -0x1.812746b0379e6p-2, 0x1.ce2f21a042b34p-4,
                   -0x1.b82ce31284f38p-6, 0x1.565bcd0dbd921p-8, -0x1.c02db3db49762p-11, 0x1.f9a321e4b84f9p-14,
                   -0x1.f4d1e434bc0cfp-17, 0x1.b9df305cad6f7p-20, -0x1.5f1f40faeea79p-23,
                   0x1.f7b99d7c8709ap-27, -0x1.38ac2290d3965p-30, 0x1.062759c5be8ecp-34);
    q = polynomial(t, -0x1.8c003fc4a1753p-23, -0x1.20dd5564a49a1p+0, -0x1.45f432948f4d4p-1,
                   -0x1.a4d9a9114daf1p-4, 0x1.388e860e2ba90p-6, 0x1.27f2cb92e6f13p-12, -0x1.d03d8d9b9d3a9p-10,
                   0x1.51090955ae2ccp-11, -0x1.8190d9d8787e4p-15, -0x1.2489c0bc2145cp-14,
                   0x1.778aef9df2e94p-15, -0x1.137f1572d5ff4p-16, 0x1.20ad0614fca1bp-18,
                   -0x1.c5bd16fa9499dp-21, 0x1.0c0ed4b0fcc01p-23, -0x1.d09760550dfd5p-27,
                   0x1.178b2099338ddp-30, -0x1.a1edd7997bce5p-35, 0x1.247008c4873e6p-40);
  }
  return copysign(magnitude < T(1) ? magnitude + magnitude * p : T(1) - exp_normal(q), x);
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
