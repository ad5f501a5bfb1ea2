// Images (N, C, H, W) in one of the two layouts that kernels read: planes without gaps between their
// rows, or pixels whose channels are neighbours.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "cpu/elementwise.h"

namespace thalweg::cpu {

// A view of `data` shaped like v, without gaps.
inline View laid_view(void* data, const View& v, bool channels_last) {
  View laid = contiguous_view(data, v.dtype, std::vector<std::int64_t>(v.shape, v.shape + 4));
  const std::int64_t c = v.shape[1], w = v.shape[3];
  const std::int64_t strides[] = {v.shape[2] * w * c, 1, w * c, c};
  if (channels_last) std::copy_n(strides, 4, laid.strides);
  return laid;
}

// The view itself where it lies so, else a copy that does.
class Laid {
 public:
  Laid(const View& v, bool channels_last) : view_(v) {
    const auto lies = [&](int axis, std::int64_t stride) {
      return v.shape[axis] == 1 || v.strides[axis] == stride;
    };
    if (v.elements() == 0 || (channels_last ? lies(1, 1) : lies(3, 1) && lies(2, v.shape[3]))) return;
    copy_.reset(new std::byte[static_cast<std::size_t>(v.bytes())]);
    view_ = laid_view(copy_.get(), v, channels_last);
    cpu::copy(v, view_);
  }

  const View& view() const { return view_; }

 private:
  View view_;
  std::unique_ptr<std::byte[]> copy_;
};

}  // namespace thalweg::cpu
