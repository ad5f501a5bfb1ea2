#include "cpu/conv.h"

#include <algorithm>
#include <vector>

#include "base/half.h"
#include "base/parallel.h"
#include "cpu/conv_correlation.h"
#include "cpu/conv_split.h"
#include "cpu/conv_widen.h"

namespace thalweg {
namespace {

// Problems that share a source, and step 1 if there are several.
template <class T>
void correlate(const std::vector<Correlation<T>>& problems, Precision precision) {
  if (problems.empty() || correlate_planes(problems)) return;
  for (const Correlation<T>& problem : problems) {
    if constexpr (sizeof(T) == 4) {
      // A quarter of the multiply-adds takes less time than one product of bfloat16, except on AMX.
      if (fewer_products(precision) && !kernels().bf16.split && correlate_winograd(problem)) continue;
      if (correlate_split(problem, precision)) continue;
    }
    if (correlate_pixelwise(problem) || correlate_channel_planes(problem) || correlate_channelwise(problem))
      continue;
    correlate_by_runs(problem);
  }
}

// The taps along one axis of residue class `phase` of positions of x: there, x position step * i + phase
// meets y position i + offset.
std::vector<AxisTap> taps_of_phase(std::int64_t kernel, std::int64_t stride, std::int64_t padding,
                                   std::int64_t dilation, std::int64_t weight, std::int64_t phase) {
  std::vector<AxisTap> taps;
  for (std::int64_t i = 0; i < kernel; ++i)
    if (const std::int64_t at = phase + padding - i * dilation; at % stride == 0)
      taps.push_back({at / stride, i * weight});
  return taps;
}

template <class T>
Correlation<T> forward_problem(const ConvGeometry& g, const View& x, const View& weight, const View& y) {
  const std::int64_t outputs = g.outputs / g.groups;
  return {g.images,
          g.groups,
          g.channels / g.groups,
          outputs,
          g.x,
          g.y,
          g.stride,
          taps_of(g, weight),
          Images<const T>(x),
          {weight.as<const T>(), outputs * weight.strides[0], weight.strides[0], weight.strides[1]},
          Images<T>(y)};
}

// Each residue class of positions modulo the stride is a convolution of dy with step 1 and the taps that
// meet it; nothing is scattered.
template <class T>
std::vector<Correlation<T>> phases_of(const ConvGeometry& g, const View& dy, const View& weight,
                                      const View& dx) {
  const std::int64_t outputs = g.outputs / g.groups;
  std::vector<Correlation<T>> phases;
  for (std::int64_t i = 0; i < std::min(g.stride.height, g.x.height); ++i)
    for (std::int64_t j = 0; j < std::min(g.stride.width, g.x.width); ++j) {
      Images<T> result(dx);
      result.data = result.at(0, i, j);
      result.row *= g.stride.height;
      result.column *= g.stride.width;
      phases.push_back(
          {g.images,
           g.groups,
           outputs,
           g.channels / g.groups,
           g.y,
           {ceil_div(g.x.height - i, g.stride.height), ceil_div(g.x.width - j, g.stride.width)},
           {1, 1},
           {taps_of_phase(g.kernel.height, g.stride.height, g.padding.height, g.dilation.height,
                          weight.strides[2], i),
            taps_of_phase(g.kernel.width, g.stride.width, g.padding.width, g.dilation.width,
                          weight.strides[3], j)},
           Images<const T>(dy),
           {weight.as<const T>(), outputs * weight.strides[0], weight.strides[1], weight.strides[0]},
           result});
    }
  return phases;
}

// bfloat16, by products of bfloat16; whether that was possible.
bool conv2d_split(const ConvGeometry& g, const View& x, const View& weight, const std::optional<View>& bias,
                  Activation activation, const View& y) {
  auto c = forward_problem<std::uint16_t>(g, x, weight, y);
  std::vector<float> wide;
  if (bias && bias->dtype == DType::bf16)
    for (std::int64_t o = 0; o < g.outputs; ++o)
      wide.push_back(Bfloat16::widen(bias->as<const std::uint16_t>()[o * bias->strides[0]]));
  if (bias) c.bias = wide.empty() ? bias->as<const float>() : wide.data();
  c.bias_stride = bias && wide.empty() ? bias->strides[0] : 1;
  c.activation = activation;
  return correlate_split(c, g.precision);
}

bool conv2d_data_gradient_split(const ConvGeometry& g, const View& dy, const View& weight, const View& dx) {
  const auto phases = phases_of<std::uint16_t>(g, dy, weight, dx);
  return std::all_of(phases.begin(), phases.end(),
                     [&](const auto& c) { return correlate_split(c, g.precision); });
}

// All of dx in the order of memory: positions that no kernel sees lie between others.
template <class T>
void clear(const ConvGeometry& g, const View& dx) {
  struct Axis {
    std::int64_t size, stride;
  };
  const Images<T> x(dx);
  const bool last = x.channel == 1;
  const Axis part = last ? Axis{g.x.height, x.row} : Axis{g.channels, x.channel};
  const Axis row = last ? Axis{g.x.width, x.column} : Axis{g.x.height, x.row};
  const Axis inner = last ? Axis{g.channels, 1} : Axis{g.x.width, x.column};
  const std::int64_t grain = ceil_div(1 << 14, row.size * inner.size);
  parallel_for(g.images * part.size, grain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t p = begin; p < end; ++p)
      for (std::int64_t i = 0; i < row.size; ++i) {
        T* const to = x.data + p / part.size * x.image + p % part.size * part.stride + i * row.stride;
        if (inner.stride == 1)
          std::fill_n(to, inner.size, T(0));
        else
          for (std::int64_t j = 0; j < inner.size; ++j) to[j * inner.stride] = T(0);
      }
  });
}

}  // namespace

Taps taps_of(const ConvGeometry& g, const View& weight) {
  Taps taps;
  for (std::int64_t i = 0; i < g.kernel.height; ++i)
    taps.rows.push_back({i * g.dilation.height - g.padding.height, i * weight.strides[2]});
  for (std::int64_t j = 0; j < g.kernel.width; ++j)
    taps.columns.push_back({j * g.dilation.width - g.padding.width, j * weight.strides[3]});
  return taps;
}

void conv2d(const ConvGeometry& g, const View& x, const View& weight, const std::optional<View>& bias,
            Activation activation, const View& y) {
  if (y.elements() == 0) return;
  if (y.dtype == DType::bf16) {
    if (!conv2d_split(g, x, weight, bias, activation, y)) conv2d_widened(g, x, weight, bias, activation, y);
    return;
  }
  with_float_type(y.dtype, [&]<class T>(T) {
    Correlation<T> c = forward_problem<T>(g, x, weight, y);
    if (bias) c.bias = bias->as<const T>(), c.bias_stride = bias->strides[0];
    c.activation = activation;
    correlate<T>({c}, g.precision);
  });
}

void conv2d_data_gradient(const ConvGeometry& g, const View& dy, const View& weight, const View& dx) {
  if (dx.elements() == 0) return;
  if (dx.dtype == DType::bf16) {
    if (!conv2d_data_gradient_split(g, dy, weight, dx)) conv2d_data_gradient_widened(g, dy, weight, dx);
    return;
  }
  with_float_type(dx.dtype, [&]<class T>(T) {
    auto phases = phases_of<T>(g, dy, weight, dx);
    if (std::erase_if(phases, [](const auto& phase) { return phase.taps.count() == 0; })) clear<T>(g, dx);
    correlate(phases, g.precision);
  });
}

}  // namespace thalweg
