// What pooling's two layouts share: views whose innermost stride is 1, and which windows see an element.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "cpu/elementwise.h"
#include "cpu/isa.h"
#include "cpu/pool.h"

namespace thalweg::cpu {

inline std::int64_t rows_of_work(std::int64_t elements) {  // about 3 µs of work
  return std::max<std::int64_t>(1, (1 << 13) / std::max<std::int64_t>(1, elements));
}

// The view itself where channels (or columns) are neighbours, else a copy in that layout.
class Laid {
 public:
  Laid(const View& v, bool channels_last) : view_(v) {
    const int inner = channels_last ? 1 : 3;
    if (v.strides[inner] == 1 || v.shape[inner] == 1 || v.elements() == 0) return;
    copy_.reset(new std::byte[static_cast<std::size_t>(v.bytes())]);
    view_ = contiguous_view(copy_.get(), v.dtype, std::vector<std::int64_t>(v.shape, v.shape + 4));
    if (channels_last) {
      const std::int64_t c = v.shape[1], w = v.shape[3];
      const std::int64_t strides[] = {v.shape[2] * w * c, 1, w * c, c};
      std::copy_n(strides, 4, view_.strides);
    }
    cpu::copy(v, view_);
  }

  const View& view() const { return view_; }

 private:
  View view_;
  std::unique_ptr<std::byte[]> copy_;
};

// For each element of an axis the windows that see it, in ascending order.
class Covering {
 public:
  struct Window {
    std::int64_t o, k;  // the element is number k of window o
  };

  explicit Covering(const PoolAxis& axis) {
    for (std::int64_t i = 0; i < axis.in; ++i) {
      begins_.push_back(windows_.size());
      for (std::int64_t k = axis.kernel - 1; k >= 0; --k) {
        const std::int64_t start = i + axis.padding - k * axis.dilation;
        if (start >= 0 && start % axis.stride == 0 && start / axis.stride < axis.out)
          windows_.push_back({start / axis.stride, k});
      }
    }
    begins_.push_back(windows_.size());
  }

  std::span<const Window> of(std::int64_t i) const {
    const std::size_t begin = begins_[static_cast<std::size_t>(i)];
    return {windows_.data() + begin, begins_[static_cast<std::size_t>(i) + 1] - begin};
  }

 private:
  std::vector<std::size_t> begins_;
  std::vector<Window> windows_;
};

inline PoolTaps taps_of(const std::vector<PoolTap>& taps) {
  return {taps.data(), static_cast<std::int64_t>(taps.size())};
}

// An element of a (N, C, H, W) view's channel 0.
struct Pixel {
  std::int64_t n, h, w;
};

template <class T>
T* at(const View& v, Pixel p) {
  return v.as<T>() + p.n * v.strides[0] + p.h * v.strides[2] + p.w * v.strides[3];
}

}  // namespace thalweg::cpu
