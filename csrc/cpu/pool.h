// Pooling over windows of (N, C, H, W), planes or channels-last by strides.
//
// Shapes: x (N, C, H, W), y (N, C, OH, OW). Window o of an axis sees elements o * stride + k * dilation
// - padding, k < kernel, of which those outside x count for nothing. Each window has one at least.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/view.h"

namespace thalweg::cpu {

struct PoolAxis {
  std::int64_t in, out, kernel, stride, padding, dilation;

  constexpr std::int64_t at(std::int64_t o, std::int64_t k) const {
    return o * stride + k * dilation - padding;
  }
  // The elements of window o that exist: k in [first, last).
  constexpr std::int64_t first(std::int64_t o) const {
    const std::int64_t missing = padding - o * stride;
    return missing > 0 ? (missing + dilation - 1) / dilation : 0;
  }
  constexpr std::int64_t last(std::int64_t o) const {
    const std::int64_t room = in - at(o, 0);
    return room <= 0 ? 0 : std::min(kernel, (room + dilation - 1) / dilation);
  }
};

struct PoolGeometry {
  PoolAxis h, w;
  bool count_padding;  // means: padding counts as zeros

  constexpr std::int64_t taps() const { return h.kernel * w.kernel; }
  constexpr std::int32_t code(std::int64_t kh, std::int64_t kw) const {
    return static_cast<std::int32_t>(kh * w.kernel + kw);
  }
  // What the sum of window o is divided by, axis by axis.
  constexpr std::int64_t counted(const PoolAxis& axis, std::int64_t o) const {
    if (!count_padding) return axis.last(o) - axis.first(o);
    return std::min(axis.kernel, axis.in + axis.padding - axis.at(o, 0));
  }
};

// Channels are neighbours in memory, and nothing else could be meant.
inline bool channels_last(const View& x) { return x.shape[1] > 1 && x.strides[1] == 1 && !x.contiguous(); }

// index: (N, C, OH, OW), uint8 or int32. y, dx and index lie without gaps between the rows of a plane, or
// channels are neighbours.
void max_pool(const PoolGeometry& g, const View& x, bool relu, const View& y, const View& index);
void max_pool_backward(const PoolGeometry& g, const View& dy, const View& index, const View& dx);
void max_pool_pick(const PoolGeometry& g, const View& x, const View& index, const View& y);
void avg_pool(const PoolGeometry& g, const View& x, const View& y);
void avg_pool_backward(const PoolGeometry& g, const View& dy, const View& dx);

}  // namespace thalweg::cpu
