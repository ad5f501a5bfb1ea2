#include "rules/norm.h"

#include <algorithm>
#include <cstddef>

#include "cpu/kernels/channel_sums.h"
#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

// --- sums --------------------------------------------------------------------------------------

constexpr auto kDeviations = [](auto shift, auto x) {
  const auto d = x - shift;
  return Terms{d, d * d};
};
constexpr auto kGradients = [](auto mean, auto dy, auto x) { return Terms{dy, dy * (x - mean)}; };

template <class T>
void plane_moments(const T* x, Runs runs, double* mean, double* m2) {
  const double shift = ShiftedMoments::shift(static_cast<double>(*x));
  const auto [sum, squares] = sum_planes(runs, shift, kDeviations, Elements<T>{x});
  *mean = sum;
  *m2 = squares;
  ShiftedMoments{static_cast<double>(runs.count * runs.length)}(shift, *mean, *m2);
}

// The first run as shifts.
template <class T>
struct Shifts {
  Elements<T> x;
  THALWEG_RULE Doubles vector(std::int64_t c) const { return ShiftedMoments::shift(x.vector(c)); }
  THALWEG_RULE double single(std::int64_t c) const { return ShiftedMoments::shift(x.single(c)); }
};

template <class T>
void row_moments(const T* x, Runs runs, double* __restrict mean, double* __restrict m2) {
  const Elements<T> elements{x};
  const Shifts<T> shifts{elements};
  for (std::int64_t c = 0; c < runs.length; ++c) mean[c] = m2[c] = 0;
  sum_rows(runs, shifts, mean, m2, kDeviations, elements);
  const ShiftedMoments rule{static_cast<double>(runs.count)};
  for (std::int64_t c = 0; c < runs.length; ++c) rule(shifts.single(c), mean[c], m2[c]);
}

// f(inflow) with the sources of the inflow.
template <class T, class F>
THALWEG_RULE void with_inflow(Inflow<T> inflow, const F& f) {
  inflow.y ? f(Rectified<T>{inflow.dy, inflow.y}) : f(Elements<T>{inflow.dy});
}

template <class T>
void plane_sums(Inflow<T> inflow, const T* x, Runs runs, const double* mean, double* sum_dy,
                double* sum_dy_x) {
  with_inflow(inflow, [&](auto dy) {
    const auto [first, second] = sum_planes(runs, *mean, kGradients, dy, Elements<T>{x});
    *sum_dy = first;
    *sum_dy_x = second;
  });
}

template <class T>
void row_sums(Inflow<T> inflow, const T* x, Runs runs, const double* mean, double* __restrict sum_dy,
              double* __restrict sum_dy_x) {
  for (std::int64_t c = 0; c < runs.length; ++c) sum_dy[c] = sum_dy_x[c] = 0;
  with_inflow(inflow, [&](auto dy) {
    sum_rows(runs, Elements<double>{mean}, sum_dy, sum_dy_x, kGradients, dy, Elements<T>{x});
  });
}

// --- elements ----------------------------------------------------------------------------------

// f(rule of element i, i) for all elements; rule_of(c) has the constants of channel c.
template <class RuleOf, class F>
THALWEG_RULE void for_plane_elements(Runs runs, const RuleOf& rule_of, const F& f) {
  const auto rule = rule_of(0);
  for (std::int64_t r = 0; r < runs.count; ++r) {
    const std::int64_t begin = r * runs.stride, end = begin + runs.length;
#pragma GCC ivdep
    for (std::int64_t i = begin; i < end; ++i) f(rule, i);
  }
}

// Short runs four at a time, for which the constants are loaded once. Long ones one after the other:
// memory's prefetchers follow that.
template <class RuleOf, class F>
THALWEG_RULE void for_row_elements(Runs runs, const RuleOf& rule_of, const F& f) {
  constexpr std::int64_t kShort = 128;
  const std::int64_t n = runs.length, stride = runs.stride;
  std::int64_t r = 0;
  for (; n <= kShort && r + 4 <= runs.count; r += 4) {
    const std::int64_t begin = r * stride;
#pragma GCC ivdep
    for (std::int64_t c = 0; c < n; ++c) {
      const auto rule = rule_of(c);
      f(rule, begin + c);
      f(rule, begin + c + stride);
      f(rule, begin + c + 2 * stride);
      f(rule, begin + c + 3 * stride);
    }
  }
  for (; r < runs.count; ++r) {
    const std::int64_t begin = r * stride;
#pragma GCC ivdep
    for (std::int64_t c = 0; c < n; ++c) f(rule_of(c), begin + c);
  }
}

template <bool kPlanes, class RuleOf, class F>
THALWEG_RULE void for_elements(Runs runs, const RuleOf& rule_of, const F& f) {
  if constexpr (kPlanes)
    for_plane_elements(runs, rule_of, f);
  else
    for_row_elements(runs, rule_of, f);
}

template <bool kPlanes, class T>
void apply(const T* x, const T* residual, T* y, Runs runs, NormalizeConstants<T> constants, bool relu) {
  const auto [center, scale, shift] = constants;
  const auto rule_of = [=](std::int64_t c) { return Normalize<T>{center[c], scale[c], shift[c]}; };
  const auto with = [&](auto finish) {
    if (residual)
      for_elements<kPlanes>(runs, rule_of,
                            [=](auto rule, auto i) { y[i] = finish(rule(x[i]) + residual[i]); });
    else
      for_elements<kPlanes>(runs, rule_of, [=](auto rule, auto i) { y[i] = finish(rule(x[i])); });
  };
  relu ? with(Relu<T>{}) : with([](T value) { return value; });
}

template <bool kPlanes, class T>
void backward(Inflow<T> inflow, const T* x, T* dx, T* dresidual, Runs runs,
              NormalizeBackwardConstants<T> constants) {
  const auto [center, scale, slope, offset] = constants;
  const auto [dy, y] = inflow;
  const auto rule_of = [=](std::int64_t c) {
    return NormalizeBackward<T>{center[c], scale[c], slope[c], offset[c]};
  };
  const auto with = [&](auto inflow_at) {
    if (dresidual)
      for_elements<kPlanes>(runs, rule_of, [=](auto rule, auto i) {
        const T g = inflow_at(i);
        dresidual[i] = g;
        dx[i] = rule(g, x[i]);
      });
    else
      for_elements<kPlanes>(runs, rule_of, [=](auto rule, auto i) { dx[i] = rule(inflow_at(i), x[i]); });
  };
  if (y)
    with([=, dy = dy, y = y](std::int64_t i) { return ReluBackward<T>{}(dy[i], y[i]); });
  else
    with([=, dy = dy](std::int64_t i) { return dy[i]; });
}

void merge_moments(double* __restrict mean_a, double* __restrict m2_a, double n_a,
                   const double* __restrict mean_b, const double* __restrict m2_b, double n_b,
                   std::int64_t channels) {
  const MergeMoments rule = MergeMoments::prepare(n_a, n_b);
  for (std::int64_t c = 0; c < channels; ++c) rule(mean_a[c], m2_a[c], mean_b[c], m2_b[c]);
}

void stream(const void* from, void* to, std::int64_t bytes) {
  constexpr std::int64_t kStep = sizeof(Doubles);
  const auto* source = static_cast<const std::byte*>(from);
  auto* target = static_cast<std::byte*>(to);
  const auto skew = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(to) % kStep);
  const std::int64_t head = std::min((kStep - skew) % kStep, bytes);
  std::memcpy(target, source, static_cast<std::size_t>(head));
  std::int64_t i = head;
  for (; i + kStep <= bytes; i += kStep) {
    Doubles vector;
    std::memcpy(&vector, source + i, kStep);
    stream_vector(reinterpret_cast<double*>(target + i), vector);
  }
  std::memcpy(target + i, source + i, static_cast<std::size_t>(bytes - i));
  _mm_sfence();
}

template <class T>
constexpr NormLoops<T> kPlane{plane_moments<T>, apply<true, T>, plane_sums<T>, backward<true, T>};
template <class T>
constexpr NormLoops<T> kRow{row_moments<T>, apply<false, T>, row_sums<T>, backward<false, T>};

}  // namespace

void fill(NormKernels& kernels) {
  kernels.plane_f32 = kPlane<float>;
  kernels.plane_f64 = kPlane<double>;
  kernels.row_f32 = kRow<float>;
  kernels.row_f64 = kRow<double>;
  kernels.merge_moments = merge_moments;
  kernels.stream = stream;
  fill(kernels.layer);
}

}  // namespace thalweg::THALWEG_ISA
