// What a convolution and its gradient of data have in common.
#pragma once

#include <cstdint>
#include <type_traits>
#include <vector>

#include "cpu/conv_window.h"

namespace thalweg {

// result[n, i, j, g, o] = activation(bias[g, o] + sum over taps t and channels c of
//   source[n, i * step + t.row, j * step + t.column, g, c] * weight[g, o, c, t])
// where the source is 0 outside of its image. Of bfloat16 (as bits) bias and sums are float32.
template <class T>
struct Correlation {
  using Sum = std::conditional_t<sizeof(T) == 2, float, T>;
  struct Weight {
    const T* data;
    std::int64_t group, output, input;  // strides
  };
  std::int64_t images, groups, inputs, outputs;  // channels of a group
  Extents source_size, result_size, step;
  Taps taps;
  Images<const T> source;
  Weight weight;
  Images<T> result;
  const Sum* bias = nullptr;
  std::int64_t bias_stride = 0;
  Activation activation = Activation::identity;
};

// Serves all.
template <class T>
void correlate_by_runs(const Correlation<T>& problem);

// The following answer whether they did the work.

// One-element kernels: matrix products.
template <class T>
bool correlate_pixelwise(const Correlation<T>& problem);
template <class T>
bool pixelwise_weight_gradient(const ConvGeometry& geometry, const View& dy, const View& x, const View& dw);

// Few results for each pixel: vectors of pixels. All problems share their source, groups and channels.
template <class T>
bool correlate_planes(const std::vector<Correlation<T>>& problems);

// Depthwise: vectors of pixels where these are neighbours, or of channels, instead of products.

template <class T>
bool correlate_channel_planes(const Correlation<T>& problem);

template <class T>
bool correlate_channelwise(const Correlation<T>& problem);
bool channelwise_weight_gradient(const ConvGeometry& geometry, const View& dy, const View& x, const View& dw);

// 3 x 3 and 5 x 5 at step 1, with fewer products and more rounding.
bool correlate_winograd(const Correlation<float>& problem);
bool winograd_weight_gradient(const ConvGeometry& geometry, const View& dy, const View& x, const View& dw);

}  // namespace thalweg
