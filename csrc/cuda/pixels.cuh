// Elements of (N, C, H, W) arrays in the order of their memory: one thread each.
#pragma once

#include <cstdint>

#include "base/view.h"
#include "cpu/pool.h"
#include "cuda/launch.cuh"

namespace thalweg::cuda {

struct Pixel {
  std::int64_t n, c, h, w;
};

// Strides of one array, by which a pixel is found.
struct PixelStrides {
  std::int64_t n, c, h, w;

  PixelStrides() = default;
  explicit PixelStrides(const View& v) : n(v.strides[0]), c(v.strides[1]), h(v.strides[2]), w(v.strides[3]) {}
  THALWEG_HOST_DEVICE std::int64_t at(const Pixel& p) const { return p.n * n + p.c * c + p.h * h + p.w * w; }
};

// The elements of a view, counted with its innermost axis last.
struct Pixels {
  std::int64_t count, c, h, w;
  bool channels_last;

  explicit Pixels(const View& v)
      : count(v.elements()),
        c(v.shape[1]),
        h(v.shape[2]),
        w(v.shape[3]),
        channels_last(cpu::channels_last(v)) {}

  THALWEG_HOST_DEVICE Pixel at(std::int64_t index) const {
    const std::int64_t inner = channels_last ? c : w, middle = channels_last ? w : h,
                       outer = channels_last ? h : c;
    const std::int64_t rest = index / inner, i = index - rest * inner;
    const std::int64_t top = rest / middle, m = rest - top * middle;
    const std::int64_t n = top / outer, o = top - n * outer;
    return channels_last ? Pixel{n, i, o, m} : Pixel{n, o, m, i};
  }
};

constexpr int kPixelThreads = 256;

// kernel(pixels, arguments...) with at least one thread per element; it calls for_pixels.
template <class... Params, class... Args>
void launch_pixels(void (*kernel)(Pixels, Params...), const Pixels& pixels, Stream stream,
                   const Args&... args) {
  launch(kernel, blocks_for(pixels.count, kPixelThreads), kPixelThreads, 0, stream, pixels, args...);
}

template <class F>
__device__ void for_pixels(const Pixels& pixels, const F& f) {
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < pixels.count;
       i += std::int64_t{gridDim.x} * blockDim.x)
    f(pixels.at(i));
}

}  // namespace thalweg::cuda
