// Layer normalisation of one contiguous row (Ba, Kiros & Hinton 2016). Sums follow base/tree.h.
#pragma once

#include <cstdint>

namespace thalweg {

struct RowMoments {
  double mean, rstd;
};

template <class T>
struct LayerNormLoops {
  // y = gamma (x - mean) rstd + beta
  RowMoments (*forward)(const T* x, const T* gamma, const T* beta, T* y, std::int64_t n,
                        double eps) = nullptr;
  // Writes dx and adds this row's share to dgamma = Σ dy xhat and dbeta = Σ dy.
  void (*backward)(const T* dy, const T* x, const T* gamma, RowMoments moments, T* dx, double* dgamma,
                   double* dbeta, std::int64_t n) = nullptr;
};

struct LayerNormKernels {
  LayerNormLoops<float> f32;
  LayerNormLoops<double> f64;

  template <class T>
  const LayerNormLoops<T>& loops() const {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
};

}  // namespace thalweg
