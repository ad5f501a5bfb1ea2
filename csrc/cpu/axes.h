// A set of axes in C order, walked by one linear index.
#pragma once

#include <cstdint>

#include "base/view.h"

namespace thalweg::cpu {

struct Axes {
  int rank = 0;
  std::int64_t shape[kMaxRank] = {}, strides[kMaxRank] = {};

  // Adds an axis inside the others, and joins it to its neighbour where memory allows.
  void append(std::int64_t extent, std::int64_t stride) {
    if (extent == 1) return;
    if (rank > 0 && strides[rank - 1] == stride * extent) {
      shape[rank - 1] *= extent;
      strides[rank - 1] = stride;
      return;
    }
    shape[rank] = extent;
    strides[rank++] = stride;
  }

  std::int64_t elements() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }

  std::int64_t inner_shape() const { return rank ? shape[rank - 1] : 1; }
  std::int64_t inner_stride() const { return rank ? strides[rank - 1] : 1; }

  std::int64_t offset(std::int64_t index) const {
    std::int64_t offset = 0;
    for (int i = rank - 1; i >= 0; --i) {
      offset += index % shape[i] * strides[i];
      index /= shape[i];
    }
    return offset;
  }
};

// out[k] = element begin + k of what the axes name.
template <class T>
void gather(const Axes& axes, const T* base, std::int64_t begin, std::int64_t count, T* out) {
  const std::int64_t inner = axes.inner_shape(), stride = axes.inner_stride();
  while (count > 0) {
    const std::int64_t first = begin % inner;
    const std::int64_t n = count < inner - first ? count : inner - first;
    const T* source = base + axes.offset(begin);
    for (std::int64_t k = 0; k < n; ++k) out[k] = source[k * stride];
    out += n;
    begin += n;
    count -= n;
  }
}

}  // namespace thalweg::cpu
