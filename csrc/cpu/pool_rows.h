// Which elements the results of a row see, in images whose pixels are neighbouring elements.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "cpu/kernels/pool.h"
#include "cpu/pool.h"

namespace thalweg::cpu {

// For each element of an axis the windows that see it, in ascending order.
class Covering {
 public:
  struct Window {
    std::int64_t o, k;  // the element is number k of window o
  };

  explicit Covering(const PoolAxis& axis) {
    for (std::int64_t i = 0; i < axis.in; ++i) {
      begins_.push_back(windows_.size());
      for (std::int64_t k = axis.kernel - 1; k >= 0; --k) {
        const std::int64_t start = i + axis.padding - k * axis.dilation;
        if (start >= 0 && start % axis.stride == 0 && start / axis.stride < axis.out)
          windows_.push_back({start / axis.stride, k});
      }
    }
    begins_.push_back(windows_.size());
  }

  std::span<const Window> of(std::int64_t i) const {
    const std::size_t begin = begins_[static_cast<std::size_t>(i)];
    return {windows_.data() + begin, begins_[static_cast<std::size_t>(i) + 1] - begin};
  }

 private:
  std::vector<std::size_t> begins_;
  std::vector<Window> windows_;
};

// Of rows and pixels, in elements.
struct Steps {
  std::int64_t row, column;
};

// Rows from `first` on of an image whose pixels are neighbouring elements.
template <class T>
struct Image {
  T* data;
  Steps steps;
  std::int64_t first = 0;

  T* at(std::int64_t h) const { return data + (h - first) * steps.row; }
};

// What the results of a row see, from the first tap's row on. Those that see alike share their taps.
class SeenRow {
 public:
  // One more result, with the taps of list number `list`: a new one, whose taps are added next, if it
  // is lists().
  void window(std::size_t list, std::int64_t offset, std::int64_t index, double divisor) {
    if (list == lists()) begins_.push_back(taps_.size());
    windows_.push_back({nullptr, 0, offset, index, divisor});
    list_of_.push_back(list);
  }
  void tap(const PoolTap& tap) { taps_.push_back(tap); }
  std::size_t lists() const { return begins_.size(); }

  void finish() {
    for (std::size_t w = 0; w < windows_.size(); ++w) {
      const std::size_t list = list_of_[w], begin = begins_[list];
      const std::size_t end = list + 1 < lists() ? begins_[list + 1] : taps_.size();
      windows_[w].taps = taps_.data() + begin;
      windows_[w].count = static_cast<std::int64_t>(end - begin);
    }
  }

  PoolRow row(std::int64_t n, std::int64_t step, std::int64_t code) const {
    return {windows_.data(), static_cast<std::int64_t>(windows_.size()), n, step, code};
  }

 private:
  std::vector<PoolTap> taps_;
  std::vector<std::size_t> begins_, list_of_;
  std::vector<PoolWindow> windows_;
};

// Row o of the windows sees rows from `top` on of an image with these strides.
class WindowRows {
 public:
  WindowRows(const PoolGeometry& g, Steps x) : g_(g) {
    for (std::int64_t o = 0; o < g.h.out; ++o) {
      SeenRow& seen = rows_[key(o)];
      if (seen.lists() == 0) fill(seen, o, x);
      of_.push_back(&seen);
    }
  }

  WindowRows(const WindowRows&) = delete;  // of_ points into rows_

  std::int64_t top(std::int64_t o) const { return g_.h.at(o, g_.h.first(o)); }
  std::int64_t bottom(std::int64_t o) const { return g_.h.at(o, g_.h.last(o) - 1) + 1; }
  const SeenRow& of(std::int64_t o) const { return *of_[static_cast<std::size_t>(o)]; }

 private:
  using Key = std::pair<std::int64_t, std::int64_t>;

  Key key(std::int64_t o) const { return {g_.h.first(o), g_.h.last(o)}; }

  void fill(SeenRow& seen, std::int64_t o, Steps x) const {
    const auto [top, bottom] = key(o);
    std::int64_t left = -1, right = -1;
    for (std::int64_t w = 0; w < g_.w.out; ++w) {
      const std::int64_t offset = g_.w.at(w, g_.w.first(w)) * x.column;
      const double divisor = static_cast<double>(g_.counted(g_.h, o) * g_.counted(g_.w, w));
      const bool alike = left == g_.w.first(w) && right == g_.w.last(w);
      seen.window(seen.lists() - (alike ? 1 : 0), offset, 0, divisor);
      if (alike) continue;
      left = g_.w.first(w), right = g_.w.last(w);
      for (std::int64_t kh = top; kh < bottom; ++kh)
        for (std::int64_t kw = left; kw < right; ++kw)
          seen.tap({(kh - top) * g_.h.dilation * x.row + (kw - left) * g_.w.dilation * x.column, 0,
                    g_.code(kh, kw)});
    }
    seen.finish();
  }

  PoolGeometry g_;
  std::map<Key, SeenRow> rows_;
  std::vector<const SeenRow*> of_;
};

// Row h of the elements is seen by rows from `top` on of the windows, whose values and codes have
// these strides.
class ElementRows {
 public:
  ElementRows(const PoolGeometry& g, Steps dy, Steps index) : g_(g), rows_of_(g.h), columns_of_(g.w) {
    for (std::int64_t h = 0; h < g.h.in; ++h) {
      SeenRow& seen = rows_[key(rows_of_.of(h))];
      if (seen.lists() == 0) fill(seen, rows_of_.of(h), dy, index);
      of_.push_back(&seen);
    }
  }

  ElementRows(const ElementRows&) = delete;

  // No rows, of which the first is 0, where no window sees the element.
  std::int64_t top(std::int64_t h) const { return rows_of_.of(h).empty() ? 0 : rows_of_.of(h).front().o; }
  std::int64_t bottom(std::int64_t h) const {
    return rows_of_.of(h).empty() ? 0 : rows_of_.of(h).back().o + 1;
  }
  const SeenRow& of(std::int64_t h) const { return *of_[static_cast<std::size_t>(h)]; }

 private:
  using Key = std::pair<std::int64_t, std::size_t>;  // successive windows lie at equal distances
  using Windows = std::span<const Covering::Window>;

  static Key key(Windows windows) { return {windows.empty() ? -1 : windows.front().k, windows.size()}; }

  void fill(SeenRow& seen, Windows rows, Steps dy, Steps index) const {
    std::vector<Key> keys;  // of the lists
    for (std::int64_t w = 0; w < g_.w.in; ++w) {
      const Windows columns = columns_of_.of(w);
      const std::int64_t first = columns.empty() ? 0 : columns.front().o;
      const auto list = std::find(keys.begin(), keys.end(), key(columns));
      seen.window(static_cast<std::size_t>(list - keys.begin()), first * dy.column, first * index.column, 1);
      if (list != keys.end()) continue;
      keys.push_back(key(columns));
      for (const auto [oh, kh] : rows)
        for (const auto [ow, kw] : columns) {
          const std::int64_t down = oh - rows.front().o, right = ow - first;
          seen.tap(
              {down * dy.row + right * dy.column, down * index.row + right * index.column, g_.code(kh, kw)});
        }
    }
    seen.finish();
  }

  PoolGeometry g_;
  Covering rows_of_, columns_of_;
  std::map<Key, SeenRow> rows_;
  std::vector<const SeenRow*> of_;
};

// Row o of the windows sees itself alone, to be divided by its elements.
class QuotientRows {
 public:
  QuotientRows(const PoolGeometry& g, Steps dy) : g_(g) {
    for (std::int64_t o = 0; o < g.h.out; ++o) {
      SeenRow& seen = rows_[g.counted(g.h, o)];
      if (seen.lists() > 0) continue;
      for (std::int64_t w = 0; w < g.w.out; ++w) {
        const double divisor = static_cast<double>(g.counted(g.h, o) * g.counted(g.w, w));
        seen.window(0, w * dy.column, 0, divisor);
        if (w == 0) seen.tap({0, 0, 0});
      }
      seen.finish();
    }
  }

  std::int64_t top(std::int64_t o) const { return o; }
  std::int64_t bottom(std::int64_t o) const { return o + 1; }
  const SeenRow& of(std::int64_t o) const { return rows_.at(g_.counted(g_.h, o)); }

 private:
  PoolGeometry g_;
  std::map<std::int64_t, SeenRow> rows_;
};

}  // namespace thalweg::cpu
