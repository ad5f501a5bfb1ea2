// What a reduction does to one element and to two partial results. V is double or a vector of them.
#pragma once

#include <cstdint>
#include <limits>

#include "base/config.h"

namespace thalweg {

enum class Reduction : std::uint8_t { sum, sum_squares, max, min };
inline constexpr int kReductions = 4;

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

// f(Sum{}) for Reduction::sum, and so on.
template <class F>
void with_rule(Reduction reduction, const F& f) {
  switch (reduction) {
    case Reduction::sum:
      return f(Sum{});
    case Reduction::sum_squares:
      return f(SumSquares{});
    case Reduction::max:
      return f(Max{});
    case Reduction::min:
      return f(Min{});
  }
}

}  // namespace THALWEG_ISA
}  // namespace thalweg
