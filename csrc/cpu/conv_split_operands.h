// Operands of convolutions in bfloat16 parts: what a block sees of an image, and panels of weights, as
// cpu/kernels/gemm_bf16.h has them.
//
// The pixels of a window are rows of A: slab of 32 channels after slab, each one pixel after pixel, zeros
// around the image. A tap is an offset into it, so that the slabs of K are those of each tap in turn.
#pragma once

#include <cstring>
#include <vector>

#include "cpu/conv_correlation.h"

namespace thalweg {

template <class T>
class SplitOperands {
 public:
  SplitOperands(const Correlation<T>& problem, int parts)
      : p_(problem),
        kernels_(kernels().bf16),
        parts_(parts),
        vertical_(reach(p_.taps.rows)),
        horizontal_(reach(p_.taps.columns)),
        width_((p_.result_size.width - 1) * p_.step.width + horizontal_.end - horizontal_.begin),
        inside_(vertical_.begin >= 0 && horizontal_.begin >= 0 &&
                horizontal_.begin + width_ <= p_.source_size.width &&
                vertical_.begin + window_rows(p_.result_size.height) <= p_.source_size.height),
        input_slabs_(ceil_div(p_.inputs, kTileDepth)) {}

  // Windows of up to so many rows of so many images are to be packed.
  void set_block(std::int64_t images, std::int64_t rows) {
    // A tile reads whole ones of 16 pixels, up to 32 of them.
    plane_ = (images * window_rows(rows) * width_ + 32 * p_.step.width) * kTileDepth;
    slabs_.clear();
    for (const AxisTap& row : p_.taps.rows)
      for (const AxisTap& column : p_.taps.columns)
        for (std::int64_t i = 0; i < input_slabs_; ++i) {
          const std::int64_t pixel =
              (row.offset - vertical_.begin) * width_ + column.offset - horizontal_.begin;
          slabs_.push_back(
              {i * plane_ + pixel * kTileDepth, std::min(kTileDepth, p_.inputs - i * kTileDepth)});
        }
  }

  int planes() const { return std::max(parts_, 1); }
  const std::vector<Bf16Slab>& slabs() const { return slabs_; }
  std::int64_t slab_count() const { return p_.taps.count() * input_slabs_; }
  std::int64_t tap_row_slabs() const { return all_of(p_.taps.columns).end * input_slabs_; }

  // In words.
  std::int64_t panel_slab() const { return 2 * kTileWords; }
  std::int64_t panel_part() const { return slab_count() * panel_slab(); }
  std::int64_t panel_words() const { return planes() * panel_part(); }
  std::int64_t window_row() const { return width_ * kTileDepth; }
  std::int64_t window_part() const { return input_slabs_ * plane_; }
  std::int64_t window_words() const { return planes() * window_part(); }

  std::int64_t window_rows(std::int64_t rows) const {
    return (rows - 1) * p_.step.height + vertical_.end - vertical_.begin;
  }
  double bytes_per_row() const {
    return 2.0 * static_cast<double>(planes() * p_.step.height * window_row() * input_slabs_);
  }

  // The weights of a group's outputs first … first + 31.
  Magnitudes pack_panel(std::int64_t group, std::int64_t first, std::uint16_t* panel) const {
    const T* const from = p_.weight.data + group * p_.weight.group + first * p_.weight.output;
    Bf16Source source{};
    source.line = p_.weight.output;
    source.k = p_.weight.input;
    source.lines = std::min(kPanelColumns, p_.outputs - first);
    source.depth = p_.inputs;
    source.slab = panel_slab();
    source.part = panel_part();
    Magnitudes all;
    for (std::int64_t tap = 0; tap < p_.taps.count(); ++tap, panel += input_slabs_ * panel_slab()) {
      source.data = from + p_.taps.weight(tap);
      source.tiles[0] = panel;
      source.tiles[1] = panel + kTileWords;
      all.merge(pack(kernels_.pack_b[parts_], source));
    }
    return all;
  }

  // A block's window of one group of channels.
  Magnitudes pack_window(const Block& block, std::int64_t group, std::uint16_t* window) const {
    const std::int64_t rows = window_rows(block.rows), top = block.row * p_.step.height + vertical_.begin;
    const std::int64_t begin = std::clamp<std::int64_t>(-horizontal_.begin, 0, width_);
    const std::int64_t end =
        std::clamp<std::int64_t>(p_.source_size.width - horizontal_.begin, begin, width_);
    if (!inside_) std::memset(window, 0, static_cast<std::size_t>(window_words()) * sizeof *window);
    Bf16Source source{};
    source.line = p_.source.column;
    source.k = p_.source.channel;
    source.depth = p_.inputs;
    source.slab = plane_;
    source.part = window_part();
    Magnitudes all;
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = std::max<std::int64_t>(0, -top),
                        last = std::min(rows, p_.source_size.height - top);
           i < last; ++i)
        for (std::int64_t j = begin; j < end; j += kPackLines) {  // in order: zeros follow the last line
          source.data = p_.source.at(block.image + n, top + i, horizontal_.begin + j) +
                        group * p_.inputs * p_.source.channel;
          source.lines = std::min(kPackLines, end - j);
          for (std::int64_t g = 0; g < ceil_div(source.lines, kTileLines); ++g)
            source.tiles[g] = window + ((n * rows + i) * width_ + j + g * kTileLines) * kTileDepth;
          all.merge(pack(kernels_.pack_a[parts_], source));
        }
    return all;
  }

 private:
  // From the first offset to behind the last.
  static Range reach(const std::vector<AxisTap>& taps) {
    if (taps.empty()) return {0, 0};
    const auto [low, high] = std::minmax(taps.front().offset, taps.back().offset);
    return {low, high + 1};
  }

  static Magnitudes pack(Bf16Kernels::PackFunction function, const Bf16Source& source) {
    Magnitudes seen[kPackLines / kTileLines], all;
    function(source, seen);
    for (std::int64_t g = 0; g < ceil_div(source.lines, kTileLines); ++g) all.merge(seen[g]);
    return all;
  }

  const Correlation<T>& p_;
  const Bf16Kernels& kernels_;
  const int parts_;                    // 0: the operands are bfloat16
  const Range vertical_, horizontal_;  // of the taps' offsets
  const std::int64_t width_;           // of a window, in pixels
  const bool inside_;                  // no window reaches beyond the image
  const std::int64_t input_slabs_;
  std::int64_t plane_ = 0;       // words of a slab of the window
  std::vector<Bf16Slab> slabs_;  // of K, tap by tap
};

}  // namespace thalweg
