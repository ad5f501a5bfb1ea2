#include "rules/lrn.h"
#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

constexpr std::int64_t kChunk = 64;  // sums of windows that stay in registers and the first cache

template <class T>
void square(const T* x, std::int64_t n, T* squares) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) squares[i] = x[i] * x[i];
}

// f(i, sum of `size` elements of v that begin at i and lie `step` apart, in order) for i < n.
template <class T, class F>
THALWEG_RULE void for_sums(const T* v, const LrnBlock& b, const F& f) {
  for (std::int64_t begin = 0; begin < b.n; begin += kChunk) {
    const std::int64_t n = b.n - begin < kChunk ? b.n - begin : kChunk;
    T sums[kChunk] = {};
    for (std::int64_t j = 0; j < b.size; ++j) {
      const T* from = v + begin + j * b.step;
#pragma GCC ivdep
      for (std::int64_t i = 0; i < n; ++i) sums[i] += from[i];
    }
#pragma GCC ivdep
    for (std::int64_t i = 0; i < n; ++i) f(begin + i, sums[i]);
  }
}

// f(power), with s -> s^-beta: the published 3/4 needs no logarithm.
template <class T, class F>
THALWEG_RULE void with_power(const LocalResponse<T>& rule, const F& f) {
  if (rule.beta == T(0.75))
    f([](T s) __attribute__((always_inline)) { return LocalResponse<T>::power_three_quarters(s); });
  else
    f([rule](T s) __attribute__((always_inline)) { return rule.power(s); });
}

template <class T>
LocalResponse<T> rule_of(const LrnBlock& b) {
  return {static_cast<T>(b.k), static_cast<T>(b.alpha / static_cast<double>(b.size)), static_cast<T>(b.beta)};
}

template <class T>
void forward(const T* x, const LrnBlock& b, T* squares, T* y) {
  const auto rule = rule_of<T>(b);
  square(x, b.n, squares + b.before());
  with_power(rule, [&](const auto& power) __attribute__((always_inline)) {
    for_sums(squares, b, [&](std::int64_t i, T sum) __attribute__((always_inline)) {
      y[i] = x[i] * power(rule.k + rule.scale * sum);
    });
  });
}

// With r = dy x s^-beta / s: dx_c = dy_c s_c^-beta - 2 beta alpha / size x_c Σ r_c' over the windows that
// see channel c.
template <class T>
void backward(const T* dy, const T* x, const LrnBlock& b, T* squares, T* ratios, T* dx) {
  const auto rule = rule_of<T>(b);
  square(x, b.n, squares + b.before());
  T* ratio = ratios + b.after();
  with_power(rule, [&](const auto& power) __attribute__((always_inline)) {
    for_sums(squares, b, [&](std::int64_t i, T sum) __attribute__((always_inline)) {
      const T s = rule.k + rule.scale * sum, part = dy[i] * power(s);
      ratio[i] = part * x[i] / s;
      dx[i] = part;
    });
  });
  const T slope = T(2) * rule.scale * rule.beta;
  for_sums(ratios, b,
           [&](std::int64_t i, T sum) __attribute__((always_inline)) { dx[i] -= slope * x[i] * sum; });
}

template <class T>
constexpr LrnLoops<T> kLoops{forward<T>, backward<T>};

}  // namespace

void fill(LrnKernels& kernels) {
  kernels.f32 = kLoops<float>;
  kernels.f64 = kLoops<double>;
}

}  // namespace thalweg::THALWEG_ISA
