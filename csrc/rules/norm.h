// Normalisation by mean and deviation, its gradient, and the merging of statistics.
//
// mean and rstd = 1 / sqrt(var + eps) are doubles whatever the element type; what a float cannot hold
// of the mean goes into the constants below. So x - mean is exact where it matters (x near its mean),
// and a mean of 1e4 with a deviation of 1e-2 costs float32 no accuracy.
#pragma once

#include "base/config.h"

namespace thalweg {
inline namespace THALWEG_ISA {

// gamma (x - mean) rstd + beta
template <class T>
struct Normalize {
  T center, scale, shift;

  static THALWEG_RULE Normalize prepare(double mean, double rstd, double gamma, double beta) {
    const T center = static_cast<T>(mean);
    const double scale = rstd * gamma, lost = mean - static_cast<double>(center);
    return {center, static_cast<T>(scale), static_cast<T>(beta - lost * scale)};
  }

  THALWEG_RULE T operator()(T x) const { return (x - center) * scale + shift; }
};

// gamma rstd (dy - Σdy / n - xhat Σ(dy xhat) / n) with xhat = (x - mean) rstd
template <class T>
struct NormalizeBackward {
  T center, scale, slope, offset;

  static THALWEG_RULE NormalizeBackward prepare(double mean, double rstd, double gamma, double sum_dy,
                                                double sum_dy_xhat, double n) {
    const T center = static_cast<T>(mean);
    const double slope = rstd * (sum_dy_xhat / n), lost = mean - static_cast<double>(center);
    return {center, static_cast<T>(gamma * rstd), static_cast<T>(slope),
            static_cast<T>(sum_dy / n - lost * slope)};
  }

  THALWEG_RULE T operator()(T dy, T x) const { return ((dy - offset) - (x - center) * slope) * scale; }
};

// Mean and sum of squared deviations of n elements from the sums of d = x - shift and of d d. The shift is
// one of the elements, so that n (mean - shift)^2 <= n m2: the subtraction loses a factor n at worst, and
// a few units in the last place where the shift is a few deviations off. An infinity is no shift.
struct ShiftedMoments {
  double n;

  template <class V>
  static THALWEG_RULE V shift(V x) {
    return x - x == V{} ? x : V{};
  }

  THALWEG_RULE void operator()(double shift, double& sum_to_mean, double& squares_to_m2) const {
    const double offset = sum_to_mean / n;
    squares_to_m2 -= sum_to_mean * offset;
    sum_to_mean = shift + offset;
  }
};

// Mean and sum of squared deviations of two disjoint samples together (Chan, Golub & LeVeque 1983).
struct MergeMoments {
  double share, cross;  // n_b / n and n_a n_b / n

  static THALWEG_RULE MergeMoments prepare(double n_a, double n_b) {
    const double share = n_b / (n_a + n_b);
    return {share, n_a * share};
  }

  THALWEG_RULE void operator()(double& mean_a, double& m2_a, double mean_b, double m2_b) const {
    const double delta = mean_b - mean_a;
    mean_a += delta * share;
    m2_a += m2_b + delta * delta * cross;
  }
};

}  // namespace THALWEG_ISA
}  // namespace thalweg
