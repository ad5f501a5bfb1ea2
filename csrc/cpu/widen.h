// bfloat16 arrays as contiguous float32 copies, and back.
#pragma once

#include <cstdint>

#include "base/view.h"

namespace thalweg {

// An array's axes in the order in which its copy lies in memory.
struct WideLayout {
  int rank = 0;
  std::int64_t extent[kMaxRank + 2] = {}, stride[kMaxRank + 2] = {};

  std::int64_t elements() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= extent[i];
    return n;
  }
  std::int64_t offset(std::int64_t index) const {
    std::int64_t at = 0;
    for (int i = rank - 1; i >= 0; --i) {
      at += index % extent[i] * stride[i];
      index /= extent[i];
    }
    return at;
  }
  void add(std::int64_t axis_extent, std::int64_t axis_stride) {
    extent[rank] = axis_extent, stride[rank] = axis_stride;
    ++rank;
  }
};

void widen(const WideLayout& layout, const void* data, float* copy);
void narrow(const WideLayout& layout, const float* copy, void* data);

}  // namespace thalweg
