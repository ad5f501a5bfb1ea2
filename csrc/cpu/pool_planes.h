// Pooling of planes (NCHW): vectors run along the windows of a row.
//
// A row's columns are spread into phases, so that the columns that neighbouring windows see at one tap are
// neighbours, padding included; several planes stand side by side, so that short rows fill vectors too.
// Work is cut into strips of rows of groups of planes that stay in the first caches.
#pragma once

#include <cstring>

#include "base/parallel.h"
#include "cpu/pool_layout.h"

namespace thalweg::cpu {

inline constexpr std::int64_t kBand = 1 << 14;  // elements of a strip
inline constexpr std::int64_t kVector = 16;     // elements that the widest kernel takes at once

inline std::int64_t whole_vectors(std::int64_t n) { return (n + kVector - 1) / kVector * kVector; }

// Row `o` of some neighbouring planes, `pitch` elements apart.
struct PlaneRow {
  std::int64_t plane, planes, pitch, o;
};

template <class T>
T* plane_at(const View& v, std::int64_t plane) {
  return v.as<T>() + plane / v.shape[1] * v.strides[0] + plane % v.shape[1] * v.strides[1];
}

template <class T>
void copy_out(const T* row, const View& v, PlaneRow at) {
  for (std::int64_t p = 0; p < at.planes; ++p)
    std::memcpy(plane_at<T>(v, at.plane + p) + at.o * v.strides[2], row + p * at.pitch,
                static_cast<std::size_t>(v.shape[3]) * sizeof(T));
}

template <class T>
void copy_in(const View& v, PlaneRow at, T* row) {
  for (std::int64_t p = 0; p < at.planes; ++p)
    std::memcpy(row + p * at.pitch, plane_at<const T>(v, at.plane + p) + at.o * v.strides[2],
                static_cast<std::size_t>(v.shape[3]) * sizeof(T));
}

// Strips of `rows` of `all`, of groups of `planes` of `count`; work(row, end, plane, planes).
struct Cut {
  std::int64_t all, rows, count, planes;

  Cut(std::int64_t all_rows, std::int64_t all_planes, std::int64_t row, std::int64_t halo, std::int64_t step)
      : all(all_rows), count(all_planes) {
    const std::int64_t whole = (all * step + halo) * row;
    rows = whole <= kBand ? all : std::clamp<std::int64_t>((kBand / row - halo) / step, 1, all);
    planes = whole <= kBand ? std::clamp<std::int64_t>(kBand / whole, 1, count) : 1;
  }

  template <class Make>
  void for_strips(const Make& make) const {
    const std::int64_t strips = (all + rows - 1) / rows, groups = (count + planes - 1) / planes;
    parallel_for(groups * strips, 1, [&](std::int64_t begin, std::int64_t end) {
      auto work = make();
      for (std::int64_t unit = begin; unit < end; ++unit) {
        const std::int64_t row = unit % strips * rows, plane = unit / strips * planes;
        work(row, std::min(row + rows, all), plane, std::min(planes, count - plane));
      }
    });
  }
};

// Each row of windows: make(width) gives body(spread, taps, n, row), which has rows of `width` elements
// of its own. `outside` stands for padding.
template <class T, class Make>
void rows_of_windows(const PoolGeometry& g, const View& x, T outside, const Make& make) {
  const std::int64_t stride = g.w.stride, lead = (g.w.kernel - 1) * g.w.dilation / stride;
  const std::int64_t pitch = g.w.out + lead,
                     halo = std::max<std::int64_t>(0, g.h.at(0, g.h.kernel) - g.h.at(1, 0));
  const Cut cut(g.h.out, x.shape[0] * x.shape[1], stride * pitch, halo, g.h.stride);
  const std::int64_t width = whole_vectors(cut.planes * pitch) + kVector;
  const std::int64_t rows =
      std::min(g.h.in, (cut.rows - 1) * g.h.stride + (g.h.kernel - 1) * g.h.dilation + 1);
  const auto spread = kernels().pool.loops<T>().spread;
  cut.for_strips([&] {
    return
        [&, body = make(width), taps = std::vector<PoolTap>(),
         space = std::vector<T>(static_cast<std::size_t>(rows * stride * width + lead + kVector), outside)](
            std::int64_t first, std::int64_t end, std::int64_t plane, std::int64_t planes) mutable {
          const std::int64_t top = std::max<std::int64_t>(0, g.h.at(first, 0));
          const std::int64_t bottom = std::min(g.h.in, g.h.at(end - 1, g.h.kernel - 1) + 1);
          const PoolSpread s{bottom - top, g.w.in,       stride,         g.w.padding,
                             pitch,        x.strides[2], stride * width, width};
          for (std::int64_t p = 0; p < planes; ++p)
            spread(plane_at<const T>(x, plane + p) + top * x.strides[2], s, space.data() + p * pitch);
          for (std::int64_t o = first; o < end; ++o) {
            taps.clear();
            for (std::int64_t kh = g.h.first(o); kh < g.h.last(o); ++kh)
              for (std::int64_t kw = 0; kw < g.w.kernel; ++kw) {
                const std::int64_t column = kw * g.w.dilation, row = (g.h.at(o, kh) - top) * stride;
                const std::int64_t offset = (row + column % stride) * width + column / stride;
                taps.push_back({offset, offset, g.code(kh, kw), 1});
              }
            body(space.data(), taps_of(taps), whole_vectors(planes * pitch - lead),
                 PlaneRow{plane, planes, pitch, o});
          }
        };
  });
}

// Each row of elements: make(size) gives a body with space for `size` elements that
//   load(row, place): puts what row `row.o` of the windows hands back at `place`, planes `row.pitch` apart;
//   sum(windows, dx, n): adds it up.
template <class T, class Make>
void rows_of_elements(const PoolGeometry& g, const View& dx, const Make& make) {
  const std::int64_t stride = g.w.stride, lead = (g.w.kernel - 1) * g.w.dilation / stride;
  const std::int64_t places = std::max(g.w.out, (g.w.in - 1 + g.w.padding) / stride + 1),
                     pitch = lead + places;
  const Covering covering(g.h);
  const Cut cut(g.h.in, dx.shape[0] * dx.shape[1], stride * pitch, 0, 1);
  const std::int64_t width = whole_vectors(cut.planes * pitch) + kVector;
  const std::int64_t windows =
      std::min(g.h.out, (cut.rows - 1 + (g.h.kernel - 1) * g.h.dilation) / g.h.stride + 2);
  const auto gather = kernels().pool.loops<T>().gather;
  cut.for_strips([&] {
    return [&, body = make(windows * width + lead + kVector), taps = std::vector<PoolTap>(),
            space = std::vector<T>(static_cast<std::size_t>(cut.rows * stride * width))](
               std::int64_t first, std::int64_t end, std::int64_t plane, std::int64_t planes) mutable {
      std::int64_t top = g.h.out, bottom = 0;
      for (std::int64_t h = first; h < end; ++h)
        for (const auto [o, k] : covering.of(h)) top = std::min(top, o), bottom = std::max(bottom, o + 1);
      for (std::int64_t o = top; o < bottom; ++o)
        body.load(PlaneRow{plane, planes, pitch, o}, (o - top) * width + lead);
      for (std::int64_t h = first; h < end; ++h)
        for (std::int64_t phase = 0; phase < stride; ++phase) {
          taps.clear();
          for (const auto [o, kh] : covering.of(h))
            for (std::int64_t kw = g.w.kernel - 1; kw >= 0; --kw)  // windows in ascending order
              if (kw * g.w.dilation % stride == phase) {
                const std::int64_t offset = (o - top) * width + lead - kw * g.w.dilation / stride;
                taps.push_back({offset, offset, g.code(kh, kw), 1});
              }
          body.sum(taps_of(taps), space.data() + ((h - first) * stride + phase) * width,
                   whole_vectors(planes * pitch));
        }
      const PoolSpread s{end - first, g.w.in,        stride,         g.w.padding,
                         places,      dx.strides[2], stride * width, width};
      for (std::int64_t p = 0; p < planes; ++p)
        gather(space.data() + p * pitch, s, plane_at<T>(dx, plane + p) + first * dx.strides[2]);
    };
  });
}

}  // namespace thalweg::cpu
