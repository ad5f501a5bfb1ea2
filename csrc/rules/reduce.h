// What a reduction does to one element and to two partial results. V is double or a vector of them.
#pragma once

#include <limits>

#include "base/config.h"

namespace thalweg {
inline namespace THALWEG_ISA {

struct Sum {
  static constexpr double kIdentity = 0;
  template <class V>
  static THALWEG_RULE V map(V x) {
    return x;
  }
  template <class V>
  static THALWEG_RULE V merge(V a, V b) {
    return a + b;
  }
};

struct SumSquares {
  static constexpr double kIdentity = 0;
  template <class V>
  static THALWEG_RULE V map(V x) {
    return x * x;
  }
  template <class V>
  static THALWEG_RULE V merge(V a, V b) {
    return a + b;
  }
};

// NaN wins against everything, as in NumPy.
struct Max {
  static constexpr double kIdentity = -std::numeric_limits<double>::infinity();
  template <class V>
  static THALWEG_RULE V map(V x) {
    return x;
  }
  template <class V>
  static THALWEG_RULE V merge(V a, V b) {
    return ((a > b) | (a != a)) ? a : b;
  }
};

struct Min {
  static constexpr double kIdentity = std::numeric_limits<double>::infinity();
  template <class V>
  static THALWEG_RULE V map(V x) {
    return x;
  }
  template <class V>
  static THALWEG_RULE V merge(V a, V b) {
    return ((a < b) | (a != a)) ? a : b;
  }
};

}  // namespace THALWEG_ISA
}  // namespace thalweg
