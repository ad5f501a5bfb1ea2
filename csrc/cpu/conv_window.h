// What a block of output rows sees of an image: channels-last, zeros where the image ends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#include "base/integer.h"
#include "cpu/conv.h"
#include "cpu/isa.h"

namespace thalweg {

// Elements of K in a block at most, as in gemm.cpp: the sum of a block is one chain of multiply-adds.
template <class T>
inline constexpr std::int64_t kConvDepth = 1536 / static_cast<std::int64_t>(sizeof(T));

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

// A tap along one axis: output i reads input i * step + offset.
struct AxisTap {
  std::int64_t offset;
  std::int64_t weight;  // what it adds to the offset of its matrix in the array of weights
};

// The taps of a kernel, row by row.
struct Taps {
  std::vector<AxisTap> rows, columns;

  std::int64_t count() const { return static_cast<std::int64_t>(rows.size() * columns.size()); }
  std::int64_t weight(std::int64_t tap) const {
    const auto width = static_cast<std::int64_t>(columns.size());
    return rows[static_cast<std::size_t>(tap / width)].weight +
           columns[static_cast<std::size_t>(tap % width)].weight;
  }
};

Taps taps_of(const ConvGeometry& geometry, const View& weight);

struct Range {
  std::int64_t begin, end;
  bool operator==(const Range&) const = default;
};

inline Range all_of(const std::vector<AxisTap>& taps) { return {0, static_cast<std::int64_t>(taps.size())}; }

// The taps that meet the input from `position` = output * step; others see the zeros around it. Their
// offsets ascend or descend.
inline Range meeting(const std::vector<AxisTap>& taps, std::int64_t position, std::int64_t size) {
  const auto misses = [&](std::int64_t tap) {
    const std::int64_t at = position + taps[static_cast<std::size_t>(tap)].offset;
    return at < 0 || at >= size;
  };
  Range range = all_of(taps);
  while (range.begin < range.end && misses(range.begin)) ++range.begin;
  while (range.begin < range.end && misses(range.end - 1)) --range.end;
  return range;
}

// Outputs along an axis, by the taps that they meet.
struct Classes {
  std::vector<Range> ranges;    // the distinct ones
  std::vector<std::size_t> of;  // an output's range
  double share = 1;             // of the taps that meet the input

  Classes(const std::vector<AxisTap>& taps, std::int64_t outputs, std::int64_t step, std::int64_t size) {
    double met = 0;
    for (std::int64_t i = 0; i < outputs; ++i) {
      const Range range = meeting(taps, i * step, size);
      const auto found = std::find(ranges.begin(), ranges.end(), range);
      of.push_back(static_cast<std::size_t>(found - ranges.begin()));
      if (found == ranges.end()) ranges.push_back(range);
      met += static_cast<double>(range.end - range.begin);
    }
    if (!taps.empty() && outputs > 0) share = met / static_cast<double>(outputs * all_of(taps).end);
  }
};

// Rows row … row + rows of images image … image + images of the output.
struct Block {
  std::int64_t image, images, row, rows;
};

// Outputs cut into blocks whose windows take about `bytes`: some rows of `least` images, or some images.
struct Blocks {
  std::int64_t images, rows_of_image, groups, parts;  // groups of images, parts of an image

  Blocks(std::int64_t image_count, std::int64_t rows, double bytes_per_row, double bytes, std::int64_t most,
         std::int64_t least = 1)
      : images(image_count), rows_of_image(rows) {
    const double row = std::max(1.0, bytes_per_row) * static_cast<double>(least);
    const auto fit = static_cast<std::int64_t>(std::max(1.0, bytes / row));
    const std::int64_t whole = std::clamp<std::int64_t>(least * (fit / std::max<std::int64_t>(1, rows)),
                                                        least, std::max(least, most));
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

  // With `bare`, nobody reads the zeros around an image.
  Windows(const Images<const T>& source, std::int64_t channels, Extents size, Extents step, Extents outputs,
          const Taps& taps, bool bare)
      : source_(source), channels_(channels), size_(size), step_(step) {
    std::tie(first_.height, span_.height) = reach(taps.rows);
    std::tie(first_.width, span_.width) = reach(taps.columns);
    width_ = std::max<std::int64_t>(0, (outputs.width - 1) * step.width + span_.width);
    pixel_ = apart(channels);
    const bool inside = first_.height >= 0 && first_.width >= 0 &&
                        first_.height + (outputs.height - 1) * step.height + span_.height <= size.height &&
                        first_.width + width_ <= size.width;
    in_place_ = source.channel == 1 && (inside || bare) && apart(source.column) == source.column &&
                (!bare || apart(source.image) == source.image);
  }

  std::int64_t rows(std::int64_t output_rows) const {
    return std::max<std::int64_t>(0, (output_rows - 1) * step_.height + span_.height);
  }
  std::int64_t row_elements() const { return in_place_ ? 0 : width_ * pixel_; }
  std::int64_t elements(std::int64_t images, std::int64_t output_rows) const {
    return images * apart(rows(output_rows) * row_elements());
  }

  // The block's window, copied into `buffer` of elements(…) unless it can be used in place.
  Place place(const Block& block, T* buffer, const ConvFamily<T>& kernels) const {
    const std::int64_t top = block.row * step_.height + first_.height;
    if (in_place_)
      return {source_.at(block.image, top, first_.width), source_.image, source_.row, source_.column};
    const std::int64_t rows = this->rows(block.rows), row = width_ * pixel_, image = apart(rows * row);
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < rows; ++i)
        copy_row(buffer + n * image + i * row, block.image + n, top + i, kernels);
    return {buffer, image, row, pixel_};
  }

  // The elements k of the lowered matrix's columns, (tap, channel) in order, of these taps and from … to,
  // as runs relative to an output's first element, with k - from rows of B before each one. Runs that
  // follow each other in memory become one.
  std::vector<ConvRun> runs(const Taps& taps, Range rows, Range columns, std::int64_t inputs,
                            std::int64_t from, std::int64_t to, std::int64_t b_row) const {
    std::vector<ConvRun> result;
    const std::int64_t row_stride = in_place_ ? source_.row : width_ * pixel_;
    const std::int64_t column_stride = in_place_ ? source_.column : pixel_;
    for (std::int64_t i = rows.begin; i < rows.end; ++i)
      for (std::int64_t j = columns.begin; j < columns.end; ++j) {
        const std::int64_t k = (i * all_of(taps.columns).end + j) * inputs;
        const std::int64_t begin = std::max(k, from), length = std::min(k + inputs, to) - begin;
        if (length <= 0) continue;
        const std::int64_t row = taps.rows[static_cast<std::size_t>(i)].offset - first_.height;
        const std::int64_t column = taps.columns[static_cast<std::size_t>(j)].offset - first_.width;
        const ConvRun run{row * row_stride + column * column_stride + begin - k, (begin - from) * b_row,
                          length};
        if (!result.empty() && result.back().a + result.back().length == run.a &&
            result.back().b + result.back().length * b_row == run.b)
          result.back().length += length;
        else
          result.push_back(run);
      }
    return result;
  }

 private:
  static constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));

  // The next stride that does not put its elements into few sets of L1.
  static std::int64_t apart(std::int64_t stride) {
    return stride % (16 * kLine) == 0 ? stride + kLine : stride;
  }

  // The first offset, and the elements from there to the last.
  static std::pair<std::int64_t, std::int64_t> reach(const std::vector<AxisTap>& taps) {
    if (taps.empty()) return {0, 0};
    const auto [low, high] = std::minmax(taps.front().offset, taps.back().offset);
    return {low, high - low + 1};
  }

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
  Extents size_, step_, first_{}, span_{};
  std::int64_t width_, pixel_;
  bool in_place_;
};

}  // namespace thalweg
