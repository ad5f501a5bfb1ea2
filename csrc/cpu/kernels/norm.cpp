#include "rules/norm.h"
#include "cpu/kernels/lanes.h"
#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

// --- planes: along the run -------------------------------------------------------------------

// Σ map(x[i]…) over all runs; lane j sums the elements j (mod kTreeLanes) of every run.
template <class Map, class... T>
THALWEG_RULE double sum_runs(Runs runs, const Map& map, const T*... x) {
  constexpr auto add = [](auto a, auto b) { return a + b; };
  Lanes lanes = Lanes::all(0);
  double rest[kTreeLanes] = {};
  for (std::int64_t r = 0; r < runs.count; ++r) {
    const std::int64_t at = r * runs.stride;
    std::int64_t i = 0;
    for (; i + kTreeLanes <= runs.length; i += kTreeLanes)
      lanes = combine(add, lanes, combine(map, Lanes::load(x + at + i)...));
    for (int j = 0; i + j < runs.length; ++j) rest[j] += map(static_cast<double>(x[at + i + j])...);
  }
  return fold<Sum>(combine(add, lanes, Lanes::load(rest)));
}

template <class T>
void plane_moments(const T* x, Runs runs, double* mean, double* m2) {
  const double n = static_cast<double>(runs.count * runs.length);
  const double center = sum_runs(runs, [](auto v) { return v; }, x) / n;
  *mean = center;
  *m2 = sum_runs(runs, [center](auto v) { return (v - center) * (v - center); }, x);
}

template <class T>
void plane_apply(const T* x, const T* residual, T* y, Runs runs, NormalizeConstants<T> constants) {
  const Normalize<T> rule{*constants.center, *constants.scale, *constants.shift};
  for (std::int64_t r = 0; r < runs.count; ++r) {
    const std::int64_t begin = r * runs.stride, end = begin + runs.length;
    if (residual) {
#pragma GCC ivdep
      for (std::int64_t i = begin; i < end; ++i) y[i] = rule(x[i]) + residual[i];
    } else {
#pragma GCC ivdep
      for (std::int64_t i = begin; i < end; ++i) y[i] = rule(x[i]);
    }
  }
}

template <class T>
void plane_sums(const T* dy, const T* x, Runs runs, const double* mean, double* sum_dy, double* sum_dy_x) {
  const double center = *mean;
  *sum_dy = sum_runs(runs, [](auto g) { return g; }, dy);
  *sum_dy_x = sum_runs(runs, [center](auto g, auto v) { return g * (v - center); }, dy, x);
}

template <class T>
void plane_backward(const T* dy, const T* x, T* dx, Runs runs, NormalizeBackwardConstants<T> constants) {
  const NormalizeBackward<T> rule{*constants.center, *constants.scale, *constants.slope, *constants.offset};
  for (std::int64_t r = 0; r < runs.count; ++r) {
    const std::int64_t begin = r * runs.stride, end = begin + runs.length;
#pragma GCC ivdep
    for (std::int64_t i = begin; i < end; ++i) dx[i] = rule(dy[i], x[i]);
  }
}

// --- rows: across the runs -------------------------------------------------------------------

// f(x0, x1, x2, x3) for four runs at a time: the accumulators are loaded and stored once for all four.
template <class F, class G>
THALWEG_RULE void for_runs(Runs runs, const F& four, const G& one) {
  std::int64_t r = 0;
  for (; r + 4 <= runs.count; r += 4) four(r * runs.stride);
  for (; r < runs.count; ++r) one(r * runs.stride);
}

// sums[c] += map(c, x[c]) over all runs.
template <class Map, class T>
THALWEG_RULE void sum_columns(Runs runs, double* __restrict sums, const Map& map, const T* x) {
  const std::int64_t n = runs.length, stride = runs.stride;
  for_runs(
      runs,
      [&](std::int64_t at) {
#pragma GCC ivdep
        for (std::int64_t c = 0; c < n; ++c)
          sums[c] +=
              (map(c, static_cast<double>(x[at + c])) + map(c, static_cast<double>(x[at + stride + c]))) +
              (map(c, static_cast<double>(x[at + 2 * stride + c])) +
               map(c, static_cast<double>(x[at + 3 * stride + c])));
      },
      [&](std::int64_t at) {
#pragma GCC ivdep
        for (std::int64_t c = 0; c < n; ++c) sums[c] += map(c, static_cast<double>(x[at + c]));
      });
}

template <class T>
void row_moments(const T* x, Runs runs, double* __restrict mean, double* __restrict m2) {
  const std::int64_t n = runs.length;
  for (std::int64_t c = 0; c < n; ++c) mean[c] = m2[c] = 0;
  sum_columns(runs, mean, [](std::int64_t, double v) { return v; }, x);
  for (std::int64_t c = 0; c < n; ++c) mean[c] /= static_cast<double>(runs.count);
  sum_columns(runs, m2, [mean](std::int64_t c, double v) { return (v - mean[c]) * (v - mean[c]); }, x);
}

template <class T>
void row_apply(const T* x, const T* residual, T* y, Runs runs, NormalizeConstants<T> constants) {
  const T *center = constants.center, *scale = constants.scale, *shift = constants.shift;
  for (std::int64_t r = 0; r < runs.count; ++r, x += runs.stride, y += runs.stride) {
    if (residual) {
#pragma GCC ivdep
      for (std::int64_t c = 0; c < runs.length; ++c)
        y[c] = Normalize<T>{center[c], scale[c], shift[c]}(x[c]) + residual[c];
      residual += runs.stride;
    } else {
#pragma GCC ivdep
      for (std::int64_t c = 0; c < runs.length; ++c) y[c] = Normalize<T>{center[c], scale[c], shift[c]}(x[c]);
    }
  }
}

template <class T>
void row_sums(const T* dy, const T* x, Runs runs, const double* mean, double* __restrict sum_dy,
              double* __restrict sum_dy_x) {
  const std::int64_t n = runs.length, stride = runs.stride;
  for (std::int64_t c = 0; c < n; ++c) sum_dy[c] = sum_dy_x[c] = 0;
  const auto gradient = [&](std::int64_t i) { return static_cast<double>(dy[i]); };
  const auto product = [&](std::int64_t i, double center) {
    return gradient(i) * (static_cast<double>(x[i]) - center);
  };
  for_runs(
      runs,
      [&](std::int64_t at) {
#pragma GCC ivdep
        for (std::int64_t c = 0; c < n; ++c) {
          const std::int64_t i = at + c, j = i + 2 * stride;
          sum_dy[c] += (gradient(i) + gradient(i + stride)) + (gradient(j) + gradient(j + stride));
          sum_dy_x[c] += (product(i, mean[c]) + product(i + stride, mean[c])) +
                         (product(j, mean[c]) + product(j + stride, mean[c]));
        }
      },
      [&](std::int64_t at) {
#pragma GCC ivdep
        for (std::int64_t c = 0; c < n; ++c) {
          sum_dy[c] += gradient(at + c);
          sum_dy_x[c] += product(at + c, mean[c]);
        }
      });
}

template <class T>
void row_backward(const T* dy, const T* x, T* dx, Runs runs, NormalizeBackwardConstants<T> constants) {
  const auto [center, scale, slope, offset] = constants;
  for (std::int64_t r = 0; r < runs.count; ++r, dy += runs.stride, x += runs.stride, dx += runs.stride) {
#pragma GCC ivdep
    for (std::int64_t c = 0; c < runs.length; ++c)
      dx[c] = NormalizeBackward<T>{center[c], scale[c], slope[c], offset[c]}(dy[c], x[c]);
  }
}

void merge_moments(double* __restrict mean_a, double* __restrict m2_a, double n_a,
                   const double* __restrict mean_b, const double* __restrict m2_b, double n_b,
                   std::int64_t channels) {
  const MergeMoments rule = MergeMoments::prepare(n_a, n_b);
  for (std::int64_t c = 0; c < channels; ++c) rule(mean_a[c], m2_a[c], mean_b[c], m2_b[c]);
}

template <class T>
constexpr NormLoops<T> kPlane{plane_moments<T>, plane_apply<T>, plane_sums<T>, plane_backward<T>};
template <class T>
constexpr NormLoops<T> kRow{row_moments<T>, row_apply<T>, row_sums<T>, row_backward<T>};

}  // namespace

void fill(NormKernels& kernels) {
  kernels.plane_f32 = kPlane<float>;
  kernels.plane_f64 = kPlane<double>;
  kernels.row_f32 = kRow<float>;
  kernels.row_f64 = kRow<double>;
  kernels.merge_moments = merge_moments;
  fill(kernels.layer);
}

}  // namespace thalweg::THALWEG_ISA
