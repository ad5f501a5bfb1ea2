// Local response normalisation across neighbouring channels (Krizhevsky, Sutskever & Hinton 2012,
// section 3.3, with PyTorch's alpha / size): y_c = x_c s_c^-beta, s_c = k + alpha / size Σ x_c'² over the
// window [c - size / 2, c + (size - 1) / 2].
#pragma once

#include "base/math.h"
#include "base/power.h"

namespace thalweg {
inline namespace THALWEG_ISA {

template <class T>
struct LocalResponse {
  T k, scale, beta;  // scale = alpha / size

  // s^-beta; the published exponent needs no logarithm.
  THALWEG_RULE T power(T s) const { return pow(s, -beta); }
  THALWEG_RULE static T power_three_quarters(T s) {
    const T root = sqrt(s);
    return T(1) / (root * sqrt(root));
  }
};

}  // namespace THALWEG_ISA
}  // namespace thalweg
