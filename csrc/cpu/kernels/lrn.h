// Local response normalisation of a block of rows (rules/lrn.h says what it computes).
//
// The elements of a window lie `step` apart: neighbours where a row holds the channels of a pixel, a row
// apart where it holds one channel of many positions. Windows may reach beyond the n elements, where
// `squares` and `ratios` have room and are zero.
#pragma once

#include <cstdint>

namespace thalweg {

struct LrnBlock {
  std::int64_t n, step, size;
  double alpha, beta, k;

  std::int64_t before() const { return size / 2 * step; }       // elements of a window before its own
  std::int64_t after() const { return (size - 1) / 2 * step; }  // and after it
};

template <class T>
struct LrnLoops {
  // squares: before() zeros, then room for n elements, then after() zeros.
  void (*forward)(const T* x, const LrnBlock& block, T* squares, T* y) = nullptr;
  // ratios: after() zeros, then room for n, then before() zeros.
  void (*backward)(const T* dy, const T* x, const LrnBlock& block, T* squares, T* ratios, T* dx) = nullptr;
};

struct LrnKernels {
  LrnLoops<float> f32;
  LrnLoops<double> f64;

  template <class T>
  const LrnLoops<T>& loops() const {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
};

}  // namespace thalweg
