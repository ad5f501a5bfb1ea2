// Local response normalisation (rules/lrn.h): a thread per element; neighbours' squares come from the
// caches.
#include "cuda/families.h"
#include "cuda/pixels.cuh"
#include "rules/lrn.h"

namespace thalweg::cuda {
namespace {

// The channels before and after an element's own whose values it sums.
struct Reach {
  std::int64_t before, after;
};

template <class T>
struct Response {
  LocalResponse<T> rule;
  Reach reach;

  explicit Response(const cpu::LrnOptions& o)
      : rule{static_cast<T>(o.k), static_cast<T>(o.alpha / static_cast<double>(o.size)),
             static_cast<T>(o.beta)},
        reach{o.size / 2, (o.size - 1) / 2} {}

  __device__ T power(T s) const {
    return rule.beta == T(0.75) ? LocalResponse<T>::power_three_quarters(s) : rule.power(s);
  }
};

// Sum of f(pixel) over the channels around p, in order.
template <class T, class F>
__device__ T sum_around(Pixel p, std::int64_t channels, Reach reach, const F& f) {
  const std::int64_t c = p.c;
  T sum{};
  for (std::int64_t i = c - reach.before; i <= c + reach.after; ++i) {
    if (i < 0 || i >= channels) continue;
    p.c = i;
    sum += f(p);
  }
  return sum;
}

template <class T>
__device__ T response(const Response<T>& r, const Pixel& p, std::int64_t channels, const T* x,
                      const PixelStrides& strides) {
  const T sum = sum_around<T>(p, channels, r.reach, [&](const Pixel& at) {
    const T v = x[strides.at(at)];
    return v * v;
  });
  return r.rule.k + r.rule.scale * sum;
}

template <class T>
__global__ void lrn_forward(Pixels pixels, Response<T> r, const T* x, PixelStrides x_at, T* y,
                            PixelStrides y_at) {
  for_pixels(pixels, [&](const Pixel& p) {
    y[y_at.at(p)] = x[x_at.at(p)] * r.power(response(r, p, pixels.c, x, x_at));
  });
}

// ratios (like dx) = dy x s^-beta / s, dx = dy s^-beta.
template <class T>
__global__ void lrn_ratios(Pixels pixels, Response<T> r, const T* dy, PixelStrides dy_at, const T* x,
                           PixelStrides x_at, T* ratios, T* dx, PixelStrides dx_at) {
  for_pixels(pixels, [&](const Pixel& p) {
    const T s = response(r, p, pixels.c, x, x_at), part = dy[dy_at.at(p)] * r.power(s);
    ratios[dx_at.at(p)] = part * x[x_at.at(p)] / s;
    dx[dx_at.at(p)] = part;
  });
}

template <class T>
__global__ void lrn_backward(Pixels pixels, Response<T> r, const T* ratios, const T* x, PixelStrides x_at,
                             T* dx, PixelStrides dx_at) {
  const T slope = T(2) * r.rule.scale * r.rule.beta;
  for_pixels(pixels, [&](const Pixel& p) {
    const Reach seen_by{r.reach.after, r.reach.before};
    const T sum = sum_around<T>(p, pixels.c, seen_by, [&](const Pixel& at) { return ratios[dx_at.at(at)]; });
    dx[dx_at.at(p)] -= slope * x[x_at.at(p)] * sum;
  });
}

}  // namespace

void local_response_norm(const cpu::LrnOptions& o, const View& x, const View& y, Stream stream) {
  with_float_type(x.dtype, [&]<class T>(T) {
    launch_pixels(lrn_forward<T>, Pixels(y), stream, Response<T>(o), x.as<const T>(), PixelStrides(x),
                  y.as<T>(), PixelStrides(y));
  });
}

// dx is new: its elements fill its memory.
void local_response_norm_backward(const cpu::LrnOptions& o, const View& dy, const View& x, const View& dx,
                                  Stream stream) {
  with_float_type(x.dtype, [&]<class T>(T) {
    const Scratch ratios(static_cast<std::size_t>(dx.bytes()), stream);
    const Response<T> r(o);
    const PixelStrides x_at(x), dx_at(dx);
    launch_pixels(lrn_ratios<T>, Pixels(dx), stream, r, dy.as<const T>(), PixelStrides(dy), x.as<const T>(),
                  x_at, ratios.as<T>(), dx.as<T>(), dx_at);
    launch_pixels(lrn_backward<T>, Pixels(dx), stream, r, static_cast<const T*>(ratios.as<T>()),
                  x.as<const T>(), x_at, dx.as<T>(), dx_at);
  });
}

}  // namespace thalweg::cuda
