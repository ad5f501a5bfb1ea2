// Pooling of (N, C, H, W) arrays of any strides: a thread per result. What is handed back is gathered by
// each element from the windows that see it, in order, so that no sum depends on the schedule.
#include "cpu/kernels/pool.h"
#include "cuda/families.h"
#include "cuda/pixels.cuh"

namespace thalweg::cuda {
namespace {

using cpu::PoolAxis;
using cpu::PoolGeometry;

template <class T>
struct Array {
  T* data;
  PixelStrides strides;

  explicit Array(const View& v) : data(v.as<T>()), strides(v) {}
  __device__ T& operator()(const Pixel& p) const { return data[strides.at(p)]; }
};

// f(pixel of x, code) for the elements of a window, row by row.
template <class F>
__device__ void for_window(const PoolGeometry& g, const Pixel& y, const F& f) {
  for (std::int64_t i = g.h.first(y.h); i < g.h.last(y.h); ++i)
    for (std::int64_t j = g.w.first(y.w); j < g.w.last(y.w); ++j)
      f(Pixel{y.n, y.c, g.h.at(y.h, i), g.w.at(y.w, j)}, g.code(i, j));
}

// f(o, k) for the windows o whose element k is element i of the axis, in ascending order.
template <class F>
__device__ void for_covering(const PoolAxis& axis, std::int64_t i, const F& f) {
  for (std::int64_t k = axis.kernel - 1; k >= 0; --k) {
    const std::int64_t start = i + axis.padding - k * axis.dilation;
    if (start >= 0 && start % axis.stride == 0 && start / axis.stride < axis.out) f(start / axis.stride, k);
  }
}

// f(pixel of y, code) for the windows that see an element.
template <class F>
__device__ void for_windows(const PoolGeometry& g, const Pixel& x, const F& f) {
  for_covering(g.h, x.h, [&](std::int64_t oh, std::int64_t kh) {
    for_covering(g.w, x.w,
                 [&](std::int64_t ow, std::int64_t kw) { f(Pixel{x.n, x.c, oh, ow}, g.code(kh, kw)); });
  });
}

template <class T>
__device__ T divisor(const PoolGeometry& g, const Pixel& y) {
  return static_cast<T>(g.counted(g.h, y.h) * g.counted(g.w, y.w));
}

template <class T, class Index>
__global__ void max_forward(Pixels windows, PoolGeometry g, Array<const T> x, bool relu, Array<T> y,
                            Array<Index> index) {
  for_pixels(windows, [&](const Pixel& p) {
    bool found = false;
    T best{};
    Index code{};
    for_window(g, p, [&](const Pixel& at, std::int32_t c) {
      const T v = x(at);
      if (found && !(v > best || v != v)) return;
      found = true, best = v, code = static_cast<Index>(c);
    });
    if (relu && best <= T(0)) best = T(0), code = kNoTap<Index>;
    y(p) = best;
    index(p) = code;
  });
}

template <class T, class Index>
__global__ void max_backward(Pixels elements, PoolGeometry g, Array<const T> dy, Array<const Index> index,
                             Array<T> dx) {
  for_pixels(elements, [&](const Pixel& p) {
    T sum{};
    for_windows(g, p, [&](const Pixel& window, std::int32_t code) {
      if (index(window) == static_cast<Index>(code)) sum += dy(window);
    });
    dx(p) = sum;
  });
}

template <class T, class Index>
__global__ void max_pick(Pixels windows, PoolGeometry g, Array<const T> x, Array<const Index> index,
                         Array<T> y) {
  for_pixels(windows, [&](const Pixel& p) {
    const auto code = static_cast<std::int64_t>(index(p));
    y(p) = index(p) == kNoTap<Index>
               ? T(0)
               : x(Pixel{p.n, p.c, g.h.at(p.h, code / g.w.kernel), g.w.at(p.w, code % g.w.kernel)});
  });
}

template <class T>
__global__ void mean_forward(Pixels windows, PoolGeometry g, Array<const T> x, Array<T> y) {
  for_pixels(windows, [&](const Pixel& p) {
    T sum{};
    for_window(g, p, [&](const Pixel& at, std::int32_t) { sum += x(at); });
    y(p) = sum / divisor<T>(g, p);
  });
}

template <class T>
__global__ void mean_backward(Pixels elements, PoolGeometry g, Array<const T> dy, Array<T> dx) {
  for_pixels(elements, [&](const Pixel& p) {
    T sum{};
    for_windows(g, p, [&](const Pixel& window, std::int32_t) { sum += dy(window) / divisor<T>(g, window); });
    dx(p) = sum;
  });
}

// f(T, Index) for the types of a pooled array and its codes.
template <class F>
void with_types(DType dtype, DType codes, const F& f) {
  with_float_type(dtype, [&]<class T>(T value) {
    if (codes == DType::u8)
      f(value, std::uint8_t{});
    else
      f(value, std::int32_t{});
  });
}

}  // namespace

void max_pool(const PoolGeometry& g, const View& x, bool relu, const View& y, const View& index,
              Stream stream) {
  with_types(x.dtype, index.dtype, [&]<class T, class Index>(T, Index) {
    launch_pixels(max_forward<T, Index>, Pixels(y), stream, g, Array<const T>(x), relu, Array<T>(y),
                  Array<Index>(index));
  });
}

void max_pool_backward(const PoolGeometry& g, const View& dy, const View& index, const View& dx,
                       Stream stream) {
  with_types(dx.dtype, index.dtype, [&]<class T, class Index>(T, Index) {
    launch_pixels(max_backward<T, Index>, Pixels(dx), stream, g, Array<const T>(dy),
                  Array<const Index>(index), Array<T>(dx));
  });
}

void max_pool_pick(const PoolGeometry& g, const View& x, const View& index, const View& y, Stream stream) {
  with_types(x.dtype, index.dtype, [&]<class T, class Index>(T, Index) {
    launch_pixels(max_pick<T, Index>, Pixels(y), stream, g, Array<const T>(x), Array<const Index>(index),
                  Array<T>(y));
  });
}

void avg_pool(const PoolGeometry& g, const View& x, const View& y, Stream stream) {
  with_float_type(x.dtype, [&]<class T>(T) {
    launch_pixels(mean_forward<T>, Pixels(y), stream, g, Array<const T>(x), Array<T>(y));
  });
}

void avg_pool_backward(const PoolGeometry& g, const View& dy, const View& dx, Stream stream) {
  with_float_type(dx.dtype, [&]<class T>(T) {
    launch_pixels(mean_backward<T>, Pixels(dx), stream, g, Array<const T>(dy), Array<T>(dx));
  });
}

}  // namespace thalweg::cuda
