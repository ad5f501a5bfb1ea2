#include "cpu/pool.h"

#include <limits>

#include "base/parallel.h"
#include "cpu/pool_layout.h"
#include "cpu/pool_planes.h"

namespace thalweg::cpu {
namespace {

template <class F>
void with_index_type(const View& index, F&& f) {
  if (index.dtype == DType::u8)
    f(std::uint8_t{});
  else
    f(std::int32_t{});
}

// --- channels-last: vectors run along the channels of a pixel ----------------------------------

// f(first tap, taps, pixel) for every window; the offsets are from its first tap.
template <class T, class F>
void for_windows(const PoolGeometry& g, const View& x, const F& f) {
  const std::int64_t rows = x.shape[0] * g.h.out;
  parallel_for(rows, rows_of_work(g.w.out * x.shape[1]), [&](std::int64_t begin, std::int64_t end) {
    std::vector<PoolTap> taps;
    for (std::int64_t r = begin; r < end; ++r) {
      const Pixel row{r / g.h.out, r % g.h.out, 0};
      const std::int64_t top = g.h.first(row.h), bottom = g.h.last(row.h);
      std::int64_t left = -1, right = -1;
      for (std::int64_t o = 0; o < g.w.out; ++o) {
        if (left != g.w.first(o) || right != g.w.last(o)) {
          left = g.w.first(o), right = g.w.last(o);
          taps.clear();
          for (std::int64_t kh = top; kh < bottom; ++kh)
            for (std::int64_t kw = left; kw < right; ++kw)
              taps.push_back(
                  {(kh - top) * g.h.dilation * x.strides[2] + (kw - left) * g.w.dilation * x.strides[3], 0,
                   g.code(kh, kw), 1});
        }
        f(at<const T>(x, {row.n, g.h.at(row.h, top), g.w.at(o, left)}), taps_of(taps),
          Pixel{row.n, row.h, o});
      }
    }
  });
}

// f(sample, windows, pixel) for every element; offsets are from the first window of the sample, in dy
// and in the array of codes.
template <class T, class F>
void for_pixels(const PoolGeometry& g, const View& dy, const View& index, const F& f) {
  const Covering rows(g.h), columns(g.w);
  parallel_for(dy.shape[0] * g.h.in, rows_of_work(g.w.in * dy.shape[1]),
               [&](std::int64_t begin, std::int64_t end) {
                 std::vector<PoolTap> taps;
                 for (std::int64_t r = begin; r < end; ++r)
                   for (std::int64_t w = 0; w < g.w.in; ++w) {
                     taps.clear();
                     for (const auto [oh, kh] : rows.of(r % g.h.in))
                       for (const auto [ow, kw] : columns.of(w))
                         taps.push_back({oh * dy.strides[2] + ow * dy.strides[3],
                                         oh * index.strides[2] + ow * index.strides[3], g.code(kh, kw),
                                         static_cast<double>(g.counted(g.h, oh) * g.counted(g.w, ow))});
                     f(r / g.h.in, taps_of(taps), Pixel{r / g.h.in, r % g.h.in, w});
                   }
               });
}

template <class T, class Index>
void max_channels(const PoolGeometry& g, const View& x, bool relu, const View& y, const View& index) {
  const auto& loops = kernels().pool.loops<T>().template max<Index>();
  for_windows<T>(g, x, [&](const T* first, PoolTaps taps, Pixel o) {
    loops.forward(first, taps, relu, at<T>(y, o), at<Index>(index, o), x.shape[1]);
  });
}

template <class T, class Index>
void max_channels_backward(const PoolGeometry& g, const View& dy, const View& index, const View& dx) {
  const auto& loops = kernels().pool.loops<T>().template max<Index>();
  for_pixels<T>(g, dy, index, [&](std::int64_t n, PoolTaps windows, Pixel i) {
    loops.backward(at<const T>(dy, {n, 0, 0}), at<const Index>(index, {n, 0, 0}), windows, at<T>(dx, i),
                   dx.shape[1]);
  });
}

template <class T>
void mean_channels(const PoolGeometry& g, const View& x, const View& y) {
  const auto mean = kernels().pool.loops<T>().mean;
  for_windows<T>(g, x, [&](const T* first, PoolTaps taps, Pixel o) {
    const T divisor = static_cast<T>(g.counted(g.h, o.h) * g.counted(g.w, o.w));
    mean(first, taps, &divisor, false, at<T>(y, o), x.shape[1]);
  });
}

// --- planes ------------------------------------------------------------------------------------

// Where all elements of a window are -inf, padding may have been chosen: the first real tap is meant.
template <class Index>
void leave_padding(const PoolGeometry& g, Index* index, PlaneRow row) {
  for (std::int64_t o = 0; o < g.w.out && g.w.first(o) > 0; ++o) {
    const auto least = static_cast<Index>(g.code(g.h.first(row.o), g.w.first(o)));
    for (std::int64_t p = 0; p < row.planes; ++p)
      index[p * row.pitch + o] = std::max(index[p * row.pitch + o], least);
  }
}

template <class T, class Index>
void max_planes(const PoolGeometry& g, const View& x, bool relu, const View& y, const View& index) {
  const auto forward = kernels().pool.loops<T>().template max<Index>().forward;
  rows_of_windows<T>(g, x, -std::numeric_limits<T>::infinity(), [&](std::int64_t width) {
    const auto n = static_cast<std::size_t>(width);
    return [&, values = std::vector<T>(n), codes = std::vector<Index>(n)](
               const T* spread, PoolTaps taps, std::int64_t n, PlaneRow row) mutable {
      forward(spread, taps, relu, values.data(), codes.data(), n);
      leave_padding(g, codes.data(), row);
      copy_out(values.data(), y, row);
      copy_out(codes.data(), index, row);
    };
  });
}

template <class T, class Index>
void pick_planes(const PoolGeometry& g, const View& x, const View& index, const View& y) {
  const auto pick = kernels().pool.loops<T>().template max<Index>().pick;
  rows_of_windows<T>(g, x, T(0), [&](std::int64_t width) {
    const auto n = static_cast<std::size_t>(width);
    return [&, values = std::vector<T>(n), codes = std::vector<Index>(n, kNoTap<Index>)](
               const T* spread, PoolTaps taps, std::int64_t n, PlaneRow row) mutable {
      copy_in(index, row, codes.data());
      pick(spread, codes.data(), taps, values.data(), n);
      copy_out(values.data(), y, row);
    };
  });
}

// What the windows of a row are divided by, axis w; 1 between planes.
template <class T>
std::vector<T> divisors(const PoolGeometry& g) {
  std::vector<T> columns;
  for (std::int64_t o = 0; o < g.w.out; ++o) columns.push_back(static_cast<T>(g.counted(g.w, o)));
  return columns;
}

template <class T>
void mean_planes(const PoolGeometry& g, const View& x, const View& y) {
  const auto mean = kernels().pool.loops<T>().mean;
  const std::vector<T> columns = divisors<T>(g);
  rows_of_windows<T>(g, x, T(0), [&](std::int64_t width) {
    const auto n = static_cast<std::size_t>(width);
    return [&, values = std::vector<T>(n), divisor = std::vector<T>(n, T(1))](
               const T* spread, PoolTaps taps, std::int64_t n, PlaneRow row) mutable {
      const T rows = static_cast<T>(g.counted(g.h, row.o));
      for (std::int64_t p = 0; p < row.planes; ++p)
        for (std::size_t o = 0; o < columns.size(); ++o)
          divisor[static_cast<std::size_t>(p * row.pitch) + o] = rows * columns[o];
      mean(spread, taps, divisor.data(), true, values.data(), n);
      copy_out(values.data(), y, row);
    };
  });
}

template <class T, class Index>
struct MaxRows {
  const View &dy, &index;
  std::vector<T> values;
  std::vector<Index> codes;

  void load(PlaneRow row, std::int64_t place) {
    copy_in(dy, row, values.data() + place);
    copy_in(index, row, codes.data() + place);
  }
  void sum(PoolTaps windows, T* dx, std::int64_t n) const {
    kernels().pool.loops<T>().template max<Index>().backward(values.data(), codes.data(), windows, dx, n);
  }
};

template <class T>
struct MeanRows {
  const PoolGeometry& g;
  const View& dy;
  const std::vector<T>& columns;
  std::vector<T> values;

  void load(PlaneRow row, std::int64_t place) {
    const T rows = static_cast<T>(g.counted(g.h, row.o));
    T* to = values.data() + place;
    copy_in(dy, row, to);
    for (std::int64_t p = 0; p < row.planes; ++p)
      for (std::size_t o = 0; o < columns.size(); ++o)
        to[p * row.pitch + static_cast<std::int64_t>(o)] /= rows * columns[o];
  }
  void sum(PoolTaps windows, T* dx, std::int64_t n) const {
    kernels().pool.loops<T>().mean(values.data(), windows, nullptr, false, dx, n);
  }
};

}  // namespace

void max_pool(const PoolGeometry& g, const View& x, bool relu, const View& y, const View& index) {
  const bool last = channels_last(x);
  const Laid in(x, last);
  with_float_type(x.dtype, [&]<class T>(T) {
    with_index_type(index, [&]<class Index>(Index) {
      last ? max_channels<T, Index>(g, in.view(), relu, y, index)
           : max_planes<T, Index>(g, in.view(), relu, y, index);
    });
  });
}

void max_pool_backward(const PoolGeometry& g, const View& dy, const View& index, const View& dx) {
  const bool last = channels_last(dx);
  const Laid in(dy, last);
  with_float_type(dx.dtype, [&]<class T>(T) {
    with_index_type(index, [&]<class Index>(Index) {
      if (last) return max_channels_backward<T, Index>(g, in.view(), index, dx);
      rows_of_elements<T>(g, dx, [&](std::int64_t size) {
        const auto n = static_cast<std::size_t>(size);
        return MaxRows<T, Index>{in.view(), index, std::vector<T>(n), std::vector<Index>(n, kNoTap<Index>)};
      });
    });
  });
}

void max_pool_pick(const PoolGeometry& g, const View& x, const View& index, const View& y) {
  const bool last = channels_last(y);
  const Laid in(x, last);
  with_float_type(x.dtype, [&]<class T>(T) {
    with_index_type(index, [&]<class Index>(Index) {
      if (!last) return pick_planes<T, Index>(g, in.view(), index, y);
      const auto pick = kernels().pool.loops<T>().template max<Index>().pick;
      for_windows<T>(g, in.view(), [&](const T* first, PoolTaps taps, Pixel o) {
        pick(first, at<const Index>(index, o), taps, at<T>(y, o), x.shape[1]);
      });
    });
  });
}

void avg_pool(const PoolGeometry& g, const View& x, const View& y) {
  const bool last = channels_last(x);
  const Laid in(x, last);
  with_float_type(x.dtype, [&]<class T>(T) {
    last ? mean_channels<T>(g, in.view(), y) : mean_planes<T>(g, in.view(), y);
  });
}

void avg_pool_backward(const PoolGeometry& g, const View& dy, const View& dx) {
  const bool last = channels_last(dx);
  const Laid in(dy, last);
  with_float_type(dx.dtype, [&]<class T>(T) {
    if (last) {
      const auto backward = kernels().pool.loops<T>().mean_backward;
      return for_pixels<T>(g, in.view(), in.view(), [&](std::int64_t n, PoolTaps windows, Pixel i) {
        backward(at<const T>(in.view(), {n, 0, 0}), windows, at<T>(dx, i), dx.shape[1]);
      });
    }
    const std::vector<T> columns = divisors<T>(g);
    rows_of_elements<T>(g, dx, [&](std::int64_t size) {
      return MeanRows<T>{g, in.view(), columns, std::vector<T>(static_cast<std::size_t>(size))};
    });
  });
}

}  // namespace thalweg::cpu
