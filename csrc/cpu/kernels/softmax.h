// Softmax and cross-entropy of one contiguous row, shifted by its maximum: finite logits cannot
// overflow. Sums follow base/tree.h. A NaN or +inf in a row makes the whole row NaN, as in PyTorch.
#pragma once

#include <cstdint>

namespace thalweg {

template <class T>
struct SoftmaxRow {
  void (*softmax)(const T* x, T* y, std::int64_t n) = nullptr;
  void (*log_softmax)(const T* x, T* y, std::int64_t n) = nullptr;
  void (*softmax_backward)(const T* dy, const T* y, T* dx, std::int64_t n) = nullptr;
  void (*log_softmax_backward)(const T* dy, const T* y, T* dx, std::int64_t n) = nullptr;
  // Returns the loss -Σ q_k log p_k with q = (1 - smoothing) onehot(label) + smoothing / n, and
  // writes dx = scale * (p - q).
  double (*cross_entropy)(const T* x, T* dx, std::int64_t n, std::int64_t label, double smoothing,
                          double scale) = nullptr;
};

struct SoftmaxKernels {
  SoftmaxRow<float> f32;
  SoftmaxRow<double> f64;

  template <class T>
  const SoftmaxRow<T>& row() const {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
};

}  // namespace thalweg
