#include <limits>

#include "base/math.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

constexpr auto kIdentity = [](auto x) { return x; };

template <class T>
double sum(const T* x, std::int64_t n) {
  return reduce_row<Sum>(n, kIdentity, x);
}

// In T and in lanes of its own: a maximum is exact, whatever the order.
template <class T>
T maximum_of(const T* x, std::int64_t n) {
  constexpr int kVectors = 4;
  constexpr std::int64_t kStep = kVectors * kDoubles;
  T maximum = -std::numeric_limits<T>::infinity();
  std::int64_t i = 0;
  if (n >= kStep) {
    Narrow<T> lanes[kVectors];
    for (int k = 0; k < kVectors; ++k) lanes[k] = load_vector(x + k * kDoubles);
    for (i = kStep; i + kStep <= n; i += kStep)
      for (int k = 0; k < kVectors; ++k) lanes[k] = Max::merge(lanes[k], load_vector(x + i + k * kDoubles));
    T lane[kStep];
    std::memcpy(lane, lanes, sizeof lane);
    for (const T value : lane) maximum = Max::merge(maximum, value);
  }
  for (; i < n; ++i) maximum = Max::merge(maximum, x[i]);
  return maximum;
}

// e = exp(x - max); returns Σ e.
template <class T>
double exponentials(const T* __restrict x, T* __restrict e, std::int64_t n, T max) {
  for (std::int64_t i = 0; i < n; ++i) e[i] = exp(x[i] - max);
  return sum(e, n);
}

template <class T>
void softmax(const T* __restrict x, T* __restrict y, std::int64_t n) {
  const T factor = static_cast<T>(1.0 / exponentials(x, y, n, maximum_of(x, n)));
  for (std::int64_t i = 0; i < n; ++i) y[i] *= factor;
}

template <class T>
void log_softmax(const T* __restrict x, T* __restrict y, std::int64_t n) {
  const T max = maximum_of(x, n);
  const T log_sum = static_cast<T>(log(exponentials(x, y, n, max)));
  for (std::int64_t i = 0; i < n; ++i) y[i] = (x[i] - max) - log_sum;
}

// dx = y (dy - Σ dy y)
template <class T>
void softmax_backward(const T* __restrict dy, const T* __restrict y, T* __restrict dx, std::int64_t n) {
  const T dot = static_cast<T>(reduce_row<Sum>(n, [](auto a, auto b) { return a * b; }, dy, y));
  for (std::int64_t i = 0; i < n; ++i) dx[i] = y[i] * (dy[i] - dot);
}

// dx = dy - exp(y) Σ dy
template <class T>
void log_softmax_backward(const T* __restrict dy, const T* __restrict y, T* __restrict dx, std::int64_t n) {
  const T total = static_cast<T>(sum(dy, n));
  for (std::int64_t i = 0; i < n; ++i) dx[i] = dy[i] - exp(y[i]) * total;
}

// `width`: n, or more where the row goes on with -inf, whose exponentials 0 change no sum.
template <class T>
double cross_entropy(const T* __restrict x, T* __restrict dx, std::int64_t n, std::int64_t width,
                     std::int64_t label, double smoothing, double scale) {
  const T max = maximum_of(x, width);
  const double shift = static_cast<double>(max), total = exponentials(x, dx, width, max);
  const double uniform = smoothing / static_cast<double>(n);
  double loss = log(total) - (1 - smoothing) * (static_cast<double>(x[label]) - shift);
  if (smoothing != 0) loss -= uniform * reduce_row<Sum>(n, [shift](auto v) { return v - shift; }, x);
  const T factor = static_cast<T>(scale / total), offset = static_cast<T>(scale * uniform);
  for (std::int64_t i = 0; i < width; ++i) dx[i] = dx[i] * factor - offset;
  dx[label] -= static_cast<T>(scale * (1 - smoothing));
  return loss;
}

// Ten classes are no whole vector, and exponentials one by one take most of a small net's loss: a
// short row is padded.
template <class T>
double cross_entropy_row(const T* x, T* dx, std::int64_t n, std::int64_t label, double smoothing,
                         double scale) {
  if (n >= kTreeLanes) return cross_entropy(x, dx, n, n, label, smoothing, scale);
  alignas(64) T row[kTreeLanes], gradient[kTreeLanes];
  for (int i = 0; i < kTreeLanes; ++i) row[i] = i < n ? x[i] : -std::numeric_limits<T>::infinity();
  const double loss = cross_entropy<T>(row, gradient, n, std::int64_t{kTreeLanes}, label, smoothing, scale);
  for (std::int64_t i = 0; i < n; ++i) dx[i] = gradient[i];
  return loss;
}

template <class T>
constexpr SoftmaxRow<T> kRow{softmax<T>, log_softmax<T>, softmax_backward<T>, log_softmax_backward<T>,
                             cross_entropy_row<T>};

}  // namespace

void fill(SoftmaxKernels& kernels) {
  kernels.f32 = kRow<float>;
  kernels.f64 = kRow<double>;
}

}  // namespace thalweg::THALWEG_ISA
