#include "cpu/kernels/lanes.h"
#include "cpu/kernels/table.h"
#include "rules/norm.h"

namespace thalweg::THALWEG_ISA {
namespace {

template <class T>
RowMoments forward(const T* x, const T* gamma, const T* beta, T* y, std::int64_t n, double eps) {
  const double count = static_cast<double>(n);
  const double mean = reduce_row<Sum>(n, [](auto v) { return v; }, x) / count;
  const double m2 = reduce_row<Sum>(n, [mean](auto v) { return (v - mean) * (v - mean); }, x);
  const double rstd = 1 / __builtin_sqrt(m2 / count + eps);
  const auto xhat = Normalize<T>::prepare(mean, rstd, 1, 0);
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) y[i] = xhat(x[i]) * gamma[i] + beta[i];
  return {mean, rstd};
}

// With g = dy gamma: dx = rstd (g - mean(g) - xhat mean(g xhat)).
template <class T>
void backward(const T* dy, const T* x, const T* gamma, RowMoments moments, T* dx, double* __restrict dgamma,
              double* __restrict dbeta, std::int64_t n) {
  const auto [mean, rstd] = moments;
  const double sum_g = reduce_row<Sum>(n, [](auto g, auto w) { return g * w; }, dy, gamma);
  const double sum_g_x =
      reduce_row<Sum>(n, [mean = mean](auto g, auto w, auto v) { return g * w * (v - mean); }, dy, gamma, x);
  const auto rule =
      NormalizeBackward<T>::prepare(mean, rstd, 1, sum_g, sum_g_x * rstd, static_cast<double>(n));
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) dx[i] = rule(dy[i] * gamma[i], x[i]);
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) {
    const double g = static_cast<double>(dy[i]);
    dgamma[i] += g * ((static_cast<double>(x[i]) - mean) * rstd);
    dbeta[i] += g;
  }
}

template <class T>
constexpr LayerNormLoops<T> kLoops{forward<T>, backward<T>};

}  // namespace

void fill(LayerNormKernels& kernels) {
  kernels.f32 = kLoops<float>;
  kernels.f64 = kLoops<double>;
}

}  // namespace thalweg::THALWEG_ISA
