// What a block of output rows sees of an image: channels-last, zeros where the image ends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cpu/conv.h"
#include "cpu/isa.h"

namespace thalweg {

// Elements of K in a block at most, as in gemm.cpp: the sum of a block is one chain of multiply-adds.
template <class T>
inline constexpr std::int64_t kConvDepth = 1536 / static_cast<std::int64_t>(sizeof(T));

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

// n cut into `parts` of nearly equal size, the larger ones first.
constexpr std::int64_t part_begin(std::int64_t n, std::int64_t parts, std::int64_t i) {
  return n / parts * i + std::min(i, n % parts);
}

template <class T>
struct Images {
  T* data;
  std::int64_t image, channel, row, column;  // strides in elements

  explicit Images(const View& v)
      : data(v.as<T>()),
        image(v.strides[0]),
        channel(v.shape[1] == 1 ? 1 : v.strides[1]),
        row(v.strides[2]),
        column(v.shape[3] == 1 ? 1 : v.strides[3]) {}
  T* at(std::int64_t n, std::int64_t i, std::int64_t j) const {
    return data + n * image + i * row + j * column;
  }
};

// Output (i, j) reads input (i * step.height + row, j * step.width + column).
struct Tap {
  std::int64_t row, column;
  std::int64_t weight;  // offset of the tap's matrix in the array of weights
};

std::vector<Tap> taps_of(const ConvGeometry& geometry, const View& weight);

// Rows row … row + rows of images image … image + images of the output.
struct Block {
  std::int64_t image, images, row, rows;
};

// Outputs cut into blocks whose windows take about `bytes`: some rows of an image, or some images.
struct Blocks {
  std::int64_t images, rows_of_image, groups, parts;  // groups of images, parts of an image

  Blocks(std::int64_t image_count, std::int64_t rows, double bytes_per_row, double bytes,
         std::int64_t most_images)
      : images(image_count), rows_of_image(rows) {
    const auto fit = static_cast<std::int64_t>(std::max(1.0, bytes / std::max(1.0, bytes_per_row)));
    const std::int64_t whole = std::clamp<std::int64_t>(fit / std::max<std::int64_t>(1, rows), 1,
                                                        std::max<std::int64_t>(1, most_images));
    groups = ceil_div(images, whole);
    parts = std::max<std::int64_t>(1, ceil_div(rows, fit));
  }
  std::int64_t count() const { return rows_of_image == 0 ? 0 : groups * parts; }
  std::int64_t most_images() const { return groups == 0 ? 0 : ceil_div(images, groups); }
  std::int64_t most_rows() const { return ceil_div(rows_of_image, parts); }
  Block at(std::int64_t index) const {
    const std::int64_t g = index / parts, p = index % parts;
    const std::int64_t image = part_begin(images, groups, g), row = part_begin(rows_of_image, parts, p);
    return {image, part_begin(images, groups, g + 1) - image, row,
            part_begin(rows_of_image, parts, p + 1) - row};
  }
};

template <class T>
class Windows {
 public:
  // Where a block's window lies; channels are neighbours.
  struct Place {
    const T* data;
    std::int64_t image, row, column;
  };

  Windows(const Images<const T>& source, std::int64_t channels, Extents size, Extents step, Extents outputs,
          const std::vector<Tap>& taps)
      : source_(source), channels_(channels), size_(size), step_(step) {
    const auto rows = std::minmax_element(taps.begin(), taps.end(),
                                          [](const Tap& a, const Tap& b) { return a.row < b.row; });
    const auto columns = std::minmax_element(taps.begin(), taps.end(),
                                             [](const Tap& a, const Tap& b) { return a.column < b.column; });
    if (!taps.empty()) {
      first_ = {rows.first->row, columns.first->column};
      span_ = {rows.second->row - first_.height + 1, columns.second->column - first_.width + 1};
    }
    width_ = std::max<std::int64_t>(0, (outputs.width - 1) * step.width + span_.width);
    pixel_ = channels % kAliasElements == 0 ? channels + kLineElements : channels;
    in_place_ = source.channel == 1 && first_.height >= 0 && first_.width >= 0 &&
                first_.height + (outputs.height - 1) * step.height + span_.height <= size.height &&
                first_.width + width_ <= size.width && source.column % kAliasElements != 0;
  }

  bool in_place() const { return in_place_; }
  std::int64_t rows(std::int64_t output_rows) const {
    return std::max<std::int64_t>(0, (output_rows - 1) * step_.height + span_.height);
  }
  std::int64_t row_elements() const { return in_place_ ? 0 : width_ * pixel_; }
  std::int64_t elements(std::int64_t images, std::int64_t output_rows) const {
    return images * rows(output_rows) * row_elements();
  }

  // Strides of every window.
  Place strides() const {
    if (in_place_) return {nullptr, source_.image, source_.row, source_.column};
    return {nullptr, 0, width_ * pixel_, pixel_};
  }

  // The block's window, copied into `buffer` of elements(…) unless it can be used in place.
  Place place(const Block& block, T* buffer, const ConvFamily<T>& kernels) const {
    const std::int64_t top = block.row * step_.height + first_.height;
    if (in_place_)
      return {source_.at(block.image, top, first_.width), source_.image, source_.row, source_.column};
    const std::int64_t rows = this->rows(block.rows), row = width_ * pixel_;
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < rows; ++i)
        copy_row(buffer + (n * rows + i) * row, block.image + n, top + i, kernels);
    return {buffer, rows * row, row, pixel_};
  }

  // The elements k from … to of the lowered matrix's columns, (tap, channel) in order, as runs relative to
  // an output's first element; runs that follow each other in memory become one.
  std::vector<ConvRun> runs(const std::vector<Tap>& taps, std::int64_t inputs, std::int64_t from,
                            std::int64_t to) const {
    std::vector<ConvRun> result;
    const Place s = strides();
    while (from < to) {
      const Tap& tap = taps[static_cast<std::size_t>(from / inputs)];
      const std::int64_t c = from % inputs, length = std::min(inputs - c, to - from);
      const std::int64_t offset =
          (tap.row - first_.height) * s.row + (tap.column - first_.width) * s.column + c;
      if (!result.empty() && result.back().offset + result.back().length == offset)
        result.back().length += length;
      else
        result.push_back({offset, length});
      from += length;
    }
    return result;
  }

 private:
  // Pixels this far apart fall into few sets of L1.
  static constexpr std::int64_t kAliasElements = 1024 / static_cast<std::int64_t>(sizeof(T));
  static constexpr std::int64_t kLineElements = 64 / static_cast<std::int64_t>(sizeof(T));

  void copy_row(T* to, std::int64_t image, std::int64_t row, const ConvFamily<T>& kernels) const {
    if (row < 0 || row >= size_.height) return std::fill_n(to, width_ * pixel_, T(0)), void();
    const std::int64_t begin = std::clamp<std::int64_t>(-first_.width, 0, width_);
    const std::int64_t end = std::clamp<std::int64_t>(size_.width - first_.width, begin, width_);
    std::fill_n(to, begin * pixel_, T(0));
    kernels.copy(to + begin * pixel_, pixel_, 1, source_.at(image, row, first_.width + begin), source_.column,
                 source_.channel, end - begin, channels_);
    std::fill_n(to + end * pixel_, (width_ - end) * pixel_, T(0));
  }

  const Images<const T> source_;
  std::int64_t channels_;
  Extents size_, step_, first_ = {0, 0}, span_ = {0, 0};
  std::int64_t width_, pixel_;
  bool in_place_;
};

}  // namespace thalweg
