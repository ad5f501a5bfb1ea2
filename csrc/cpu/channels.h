// How the channels of a batch lie in memory, and the tiles in which statistics are taken.
//
// Element (n, c, s) of a contiguous array lies at (n C + c) S + s. With S > 1 a channel is made of
// planes of S neighbours (NCHW); with S = 1 channels are neighbours (NC, channels-last). A tile stays
// in cache between the two passes that its statistics need. Its shape depends on (N, C, S) alone.
#pragma once

#include <algorithm>

#include "base/parallel.h"
#include "base/view.h"
#include "cpu/kernels/norm.h"

namespace thalweg::cpu {

struct ChannelRange {
  std::int64_t begin, end;
  bool alone = false;  // one thread does all of it
  std::int64_t size() const { return end - begin; }
};

class Channels {
 public:
  Channels(const View& x, int axis) : channels_(x.shape[axis]) {
    for (int i = 0; i < x.rank; ++i)
      if (i != axis) (i < axis ? outer_ : inner_) *= x.shape[i];
    if (channels_ == 1) {
      inner_ *= outer_;
      outer_ = 1;
    }
    planes_ = inner_ != 1 || channels_ == 1;
    // 16 KiB of a plane for the first cache; 256 KiB of rows, which are read whole, for the second.
    constexpr std::int64_t kPlaneTile = 4096, kRowTile = 65536;
    piece_ = planes_ ? std::clamp<std::int64_t>(inner_, 1, kPlaneTile) : channels_;
    pieces_ = planes_ ? (inner_ + piece_ - 1) / piece_ : 1;
    const std::int64_t elements = std::max<std::int64_t>(1, piece_);
    runs_ = pieces_ > 1 ? 1
            : planes_   ? kPlaneTile / elements
                        : std::clamp<std::int64_t>(kRowTile / elements / 8 * 8, 8, kPlaneTile);
    tiles_ = count() == 0 ? 0 : pieces_ * ((outer_ + runs_ - 1) / runs_);
  }

  bool planes() const { return planes_; }
  std::int64_t size() const { return channels_; }
  ChannelRange all() const { return {0, channels_}; }
  std::int64_t count() const { return outer_ * inner_; }  // elements per channel
  std::int64_t tiles() const { return tiles_; }

  struct Tile {
    std::int64_t offset;  // of its first element
    Runs runs;
  };

  // Tile t of one channel (planes), or of the neighbouring `range` (rows).
  Tile tile(std::int64_t t, ChannelRange range) const {
    const std::int64_t n = t / pieces_ * runs_, s = t % pieces_ * piece_;
    const Runs runs{std::min(runs_, outer_ - n), channels_ * inner_,
                    planes_ ? std::min(piece_, inner_ - s) : range.size()};
    return {(n * channels_ + range.begin) * inner_ + s, runs};
  }

  // Elements per channel in tiles [first, last).
  double elements(std::int64_t first, std::int64_t last) const {
    const auto until = [&](std::int64_t t) {
      return t == tiles_ ? count() : t / pieces_ * runs_ * inner_ + t % pieces_ * piece_;
    };
    return static_cast<double>(until(last) - until(first));
  }

  enum Order { kFirstFirst, kLastFirst };

  // f(t, range): every tile of every channel of `range`, in parallel. A second visit begins with the last
  // tiles, which are still in some cache.
  template <class F>
  void for_tiles(ChannelRange range, const F& f, Order order = kFirstFirst) const {
    // Whole rows stream best; they are split where there are too few tiles to share.
    const bool split = !range.alone && tiles_ < 8 && num_threads() > 1;
    const std::int64_t width = planes_ ? 1 : split ? kColumns : std::max<std::int64_t>(1, range.size());
    const std::int64_t groups = (range.size() + width - 1) / width;
    const std::int64_t elements = planes_ ? runs_ * piece_ : std::min(runs_, outer_) * width;
    const std::int64_t units = groups * tiles_;
    parallel_for(units, range.alone ? units : grain(elements), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int64_t unit = order == kFirstFirst ? i : units - 1 - i;
        const std::int64_t c = range.begin + unit / tiles_ * width;
        f(unit % tiles_, ChannelRange{c, std::min(c + width, range.end)});
      }
    });
  }

  // f(range) where one thread can do all of a group of channels, whose elements then stay in its
  // cache from one stage to the next; f(all()) where tiles have to be shared. The same bits.
  template <class F>
  void for_groups(const F& f) const {
    if (planes_ ? channels_ < 2 * num_threads() : count() > kMostRows) return f(all());
    // Neighbouring columns share cache lines: groups of rows are as wide as a thread is worth.
    const std::int64_t columns = kGroupElements / std::max<std::int64_t>(1, count()) / kColumns;
    const std::int64_t width = planes_ ? 1 : kColumns * std::max<std::int64_t>(1, columns);
    parallel_for((channels_ + width - 1) / width, grain(width * count()),
                 [&](std::int64_t begin, std::int64_t end) {
                   const ChannelRange range{begin * width, std::min(end * width, channels_), true};
                   if (!planes_) return f(range);
                   for (std::int64_t c = range.begin; c < range.end; ++c) f(ChannelRange{c, c + 1, true});
                 });
  }

 private:
  static constexpr std::int64_t kColumns = 32;
  static constexpr std::int64_t kMostRows = 2048;  // of which 32 columns take 256 KiB
  static constexpr std::int64_t kGroupElements = 1 << 15;

  static std::int64_t grain(std::int64_t elements) {  // about 5 µs of work
    return std::max<std::int64_t>(1, (1 << 14) / std::max<std::int64_t>(1, elements));
  }

  std::int64_t outer_ = 1, channels_, inner_ = 1;
  bool planes_;
  std::int64_t piece_, pieces_, runs_, tiles_;  // a tile: runs_ planes or rows, or one piece of a plane
};

}  // namespace thalweg::cpu
