// An operand of a product that is gathered from an image while its panels are loaded, and the positions that
// its axes count: pixels, or the channels of taps.
//
// Both axes count positions of three digits, (image, row, column) of pixels or (tap row, tap column,
// channel). An element's place is the sum of its two positions' places, so that each is found once: a
// tile's rows when the tile starts, those of K one panel ahead.
#pragma once

#include <cstdint>
#include <numeric>

#include "cpu/conv_window.h"
#include "cuda/product.cuh"

namespace thalweg::cuda {

constexpr int kOutside = -(1 << 30);  // of every image, also when two are added

// Where an element lies: offset of its memory, and its pixel, which may be outside of the image.
struct Place {
  std::int64_t offset;
  std::int32_t row, column;
};

struct Axis {
  std::int64_t count, middle, inner;  // extents; index = (outer * middle + m) * inner + i
  std::int64_t offset[3], base;       // what a digit adds to an offset
  std::int32_t row[3], column[3], first_row, first_column;

  THALWEG_HOST_DEVICE Place place(std::int64_t index) const {
    if (index >= count) return {0, kOutside, kOutside};
    const std::int64_t rest = index / inner, d[3] = {rest / middle, rest % middle, index % inner};
    Place p{base, first_row, first_column};
    for (int i = 0; i < 3; ++i) {
      p.offset += d[i] * offset[i];
      p.row += static_cast<std::int32_t>(d[i]) * row[i];
      p.column += static_cast<std::int32_t>(d[i]) * column[i];
    }
    return p;
  }
};

// Offsets of a result's rows.
struct Positions {
  Axis axis;
  THALWEG_HOST_DEVICE std::int64_t operator()(std::int64_t row) const { return axis.place(row).offset; }
};

template <class T>
struct Gathered {
  const T* data;
  Axis along, deep;
  std::int32_t height, width;  // of the image; elements outside are 0
  bool k_first;                // neighbours in memory lie along K

  template <int kTile>
  struct Reader {
    struct Shared {
      Place along[kTile], deep[2][kPanelDepth];
    };
    static constexpr bool kPrepares = true;
    const Gathered& image;
    Shared& shared;
    std::int64_t offset;

    __device__ Reader(const Gathered& g, Shared& s, std::int64_t batch, std::int64_t first, std::int64_t)
        : image(g), shared(s), offset(batch) {
      for (int i = static_cast<int>(threadIdx.x); i < kTile; i += kProductThreads)
        shared.along[i] = image.along.place(first + i);
    }

    // Places of the panel that begins at k.
    __device__ void prepare(std::int64_t k, std::int64_t end, int buffer) const {
      const int i = static_cast<int>(threadIdx.x);
      if (i < kPanelDepth)
        shared.deep[buffer][i] = k + i < end ? image.deep.place(k + i) : Place{0, kOutside, kOutside};
    }

    template <int kWidth>
    __device__ void load(Panel<T, kWidth>& panel, std::int64_t, std::int64_t, std::int64_t,
                         int buffer) const {
      PanelWalk<kTile> at(image.k_first);
#pragma unroll 1
      for (int e = 0; e < PanelWalk<kTile>::kElements; ++e) {
        const Place a = shared.along[at.i], k = shared.deep[buffer][at.k];
        const bool inside =
            static_cast<std::uint32_t>(a.row + k.row) < static_cast<std::uint32_t>(image.height) &&
            static_cast<std::uint32_t>(a.column + k.column) < static_cast<std::uint32_t>(image.width);
        copy_async<sizeof(T)>(&panel[at.k][at.i],
                              inside ? image.data + offset + a.offset + k.offset : image.data,
                              inside ? static_cast<int>(sizeof(T)) : 0);
        at.next();
      }
    }
  };
};

// K of a gradient of weights: the pixels of y in the CPU's blocks.
struct PixelBlocks {
  std::int64_t count, groups, parts, images, rows, row_pixels;

  THALWEG_HOST_DEVICE std::int64_t begin(int block) const {
    const std::int64_t group = block / parts, part = block % parts;
    const std::int64_t image = part_begin(images, groups, group);
    return (image * rows + (part ? part_begin(rows, parts, part) : 0)) * row_pixels;
  }
};

inline std::int32_t narrow(std::int64_t n) { return static_cast<std::int32_t>(n); }

// The pixels (n, i, j) of `size`: each is `step` beyond the one before in an image of strides `image`.
template <class T>
Axis pixels(std::int64_t images, Extents size, const Images<T>& image, Extents step) {
  return {images * size.height * size.width,
          size.height,
          size.width,
          {image.image, step.height * image.row, step.width * image.column},
          0,
          {0, narrow(step.height), 0},
          {0, 0, narrow(step.width)},
          0,
          0};
}

// Taps in two arithmetic progressions, each with all channels.
struct Taps {
  std::int64_t rows, columns;
  Extents first, step;                             // pixels
  std::int64_t weight, weight_row, weight_column;  // offsets in the array of weights
};

template <class T>
Axis tapped_channels(const Taps& taps, std::int64_t channels, const Images<T>& image) {
  return {taps.rows * taps.columns * channels,
          taps.columns,
          channels,
          {taps.step.height * image.row, taps.step.width * image.column, image.channel},
          taps.first.height * image.row + taps.first.width * image.column,
          {narrow(taps.step.height), 0, 0},
          {0, narrow(taps.step.width), 0},
          narrow(taps.first.height),
          narrow(taps.first.width)};
}

// The same positions in the array of weights, which has no pixels.
inline Axis tapped_weights(const Taps& taps, std::int64_t channels, std::int64_t channel_stride) {
  return {taps.rows * taps.columns * channels,
          taps.columns,
          channels,
          {taps.weight_row, taps.weight_column, channel_stride},
          taps.weight,
          {0, 0, 0},
          {0, 0, 0},
          0,
          0};
}

inline Axis line(std::int64_t count, std::int64_t stride) {
  return {count, 1, 1, {stride, 0, 0}, 0, {0, 0, 0}, {0, 0, 0}, 0, 0};
}

inline Taps all_taps(const ConvGeometry& g, const View& weight) {
  return {g.kernel.height,   g.kernel.width,   {-g.padding.height, -g.padding.width}, g.dilation, 0,
          weight.strides[2], weight.strides[3]};
}

// Of kernel elements 0 … kernel - 1, those that meet positions `phase` of x modulo the stride.
struct PhaseTaps {
  std::int64_t count, first, element_step, pixel, pixel_step;

  PhaseTaps(std::int64_t kernel, std::int64_t stride, std::int64_t padding, std::int64_t dilation,
            std::int64_t phase)
      : element_step(stride / std::gcd(stride, dilation)),
        pixel_step(-dilation / std::gcd(stride, dilation)) {
    first = 0;
    while (first < kernel && (phase + padding - first * dilation) % stride) ++first;
    count = first < kernel ? ceil_div(kernel - first, element_step) : 0;
    pixel = (phase + padding - first * dilation) / stride;
  }
};

inline Taps taps_of_phase(const ConvGeometry& g, const View& weight, Extents phase) {
  const PhaseTaps rows(g.kernel.height, g.stride.height, g.padding.height, g.dilation.height, phase.height);
  const PhaseTaps columns(g.kernel.width, g.stride.width, g.padding.width, g.dilation.width, phase.width);
  return {rows.count,
          columns.count,
          {rows.pixel, columns.pixel},
          {rows.pixel_step, columns.pixel_step},
          rows.first * weight.strides[2] + columns.first * weight.strides[3],
          rows.element_step * weight.strides[2],
          columns.element_step * weight.strides[3]};
}

}  // namespace thalweg::cuda
