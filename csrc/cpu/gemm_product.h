// One product of a batch.
#pragma once

#include <cstdint>

#include "cpu/gemm.h"

namespace thalweg {

template <class T>
struct GemmOperand {
  T* data;
  std::int64_t row, col;
  T* at(std::int64_t i, std::int64_t j) const { return data + i * row + j * col; }
};

template <class T>
struct Product {
  std::int64_t m, n, k;
  GemmOperand<const T> a, b;
  GemmOperand<T> c;
  bool accumulate;
  const T* bias;  // contiguous, or null
  Activation activation;
};

template <class T>
Product<T> product_at(const GemmProblem& p, std::int64_t index, const T* bias) {
  std::int64_t a = 0, b = 0, c = 0;
  for (int i = p.batch_rank - 1; i >= 0 && index > 0; --i) {
    const std::int64_t at = i == 0 ? index : index % p.batch[i];
    index /= p.batch[i];
    a += at * p.a.batch[i];
    b += at * p.b.batch[i];
    c += at * p.c.batch[i];
  }
  return {p.m,
          p.n,
          p.k,
          {static_cast<const T*>(p.a.data) + a, p.a.row, p.a.col},
          {static_cast<const T*>(p.b.data) + b, p.b.row, p.b.col},
          {static_cast<T*>(p.c.data) + c, p.c.row, p.c.col},
          p.accumulate,
          bias,
          p.activation};
}

}  // namespace thalweg
