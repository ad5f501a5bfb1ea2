// Pooling of one vector of windows: element i of a result looks at x[tap.offset + i] for every tap of
// its window. In channels-last data the elements are the channels of a pixel; of planes (NCHW), the
// windows of a row, whose columns have been spread into phases first (cpu/pool_planes.h).
#pragma once

#include <cstdint>
#include <limits>

namespace thalweg {

// One element of a window, or one window that saw an element.
struct PoolTap {
  std::int64_t offset;  // in elements
  std::int64_t index;   // the same in the array of codes, where that is read
  std::int32_t code;    // its place in the window: row * kernel width + column
  double divisor;       // of the window, where means are handed back
};

struct PoolTaps {
  const PoolTap* data;
  std::int64_t count;
};

// The code of a window whose maximum a fused ReLU has cut off.
template <class Index>
inline constexpr Index kNoTap = std::numeric_limits<Index>::max();

// Columns of rows, spread so that those `stride` apart become neighbours: column w of a row goes to
// phase (w + padding) % stride, place (w + padding) / stride. Rows are `row` elements apart here and
// `spread_row` there, phases `phase` apart.
struct PoolSpread {
  std::int64_t rows, columns, stride, padding;
  std::int64_t places;  // of a phase that exist; columns beyond are left out
  std::int64_t row, spread_row, phase;
};

// Results are written once, for i < n; whole vectors are read and written where n is at least one.
template <class T, class Index>
struct MaxPoolLoops {
  // The first largest tap, or the last NaN, and its code (as PyTorch chooses).
  void (*forward)(const T* x, PoolTaps taps, bool relu, T* y, Index* index, std::int64_t n) = nullptr;
  // dx = sum of dy of the windows that chose this element
  void (*backward)(const T* dy, const Index* index, PoolTaps windows, T* dx, std::int64_t n) = nullptr;
  // y = the tap that `index` names, 0 for kNoTap
  void (*pick)(const T* x, const Index* index, PoolTaps taps, T* y, std::int64_t n) = nullptr;
};

template <class T>
struct PoolLoops {
  MaxPoolLoops<T, std::uint8_t> max_u8;
  MaxPoolLoops<T, std::int32_t> max_i32;
  // Sum of the taps, divided by divisor[i] or, unless `each`, by *divisor; not divided where it is null.
  void (*mean)(const T* x, PoolTaps taps, const T* divisor, bool each, T* y, std::int64_t n) = nullptr;
  // dx = sum of dy / divisor over the windows
  void (*mean_backward)(const T* dy, PoolTaps windows, T* dx, std::int64_t n) = nullptr;
  void (*spread)(const T* x, const PoolSpread& s, T* spread) = nullptr;
  void (*gather)(const T* spread, const PoolSpread& s, T* x) = nullptr;

  template <class Index>
  const MaxPoolLoops<T, Index>& max() const {
    if constexpr (sizeof(Index) == 1)
      return max_u8;
    else
      return max_i32;
  }
};

struct PoolKernels {
  PoolLoops<float> f32;
  PoolLoops<double> f64;

  template <class T>
  const PoolLoops<T>& loops() const {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
};

}  // namespace thalweg
