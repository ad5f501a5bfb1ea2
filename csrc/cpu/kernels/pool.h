// Pooling of a row of results, each of n neighbouring elements: the channels of a pixel, which lie so in
// channels-last data; of planes (NCHW), 16 planes are brought into that order first (PlaneLoops).
#pragma once

#include <cstdint>
#include <limits>
#include <type_traits>

namespace thalweg {

// One element of a window, or one window that saw an element.
struct PoolTap {
  std::int64_t offset;  // in elements
  std::int64_t index;   // the same in the array of codes, where that is read
  std::int32_t code;    // its place in the window: row * kernel width + column
};

// What one result sees: element i of it is made of x[offset + tap.offset + i] for every tap.
struct PoolWindow {
  const PoolTap* taps;
  std::int64_t count;
  std::int64_t offset, index;  // added to those of the taps
  double divisor;              // of a mean; nothing is divided by 1
};

struct PoolRow {
  const PoolWindow* windows;
  std::int64_t count;
  std::int64_t n;           // elements of a result
  std::int64_t step, code;  // from result to result: in elements, in codes
};

// The code of a window whose maximum a fused ReLU has cut off.
template <class Index>
inline constexpr Index kNoTap = std::numeric_limits<Index>::max();

template <class T, class Index>
struct MaxPoolLoops {
  // The first largest tap, or the last NaN, and its code (as PyTorch chooses).
  void (*forward)(const T* x, const PoolRow& row, bool relu, T* y, Index* index) = nullptr;
  // dx = sum of dy of the windows that chose this element
  void (*backward)(const T* dy, const Index* index, const PoolRow& row, T* dx) = nullptr;
  // y = the tap that `index` names, 0 for kNoTap
  void (*pick)(const T* x, const Index* index, const PoolRow& row, T* y) = nullptr;
};

template <class T>
struct PoolLoops {
  MaxPoolLoops<T, std::uint8_t> max_u8;
  MaxPoolLoops<T, std::int32_t> max_i32;
  // Sum of the taps in order, divided.
  void (*mean)(const T* x, const PoolRow& row, T* y) = nullptr;

  template <class Index>
  const MaxPoolLoops<T, Index>& max() const {
    if constexpr (sizeof(Index) == 1)
      return max_u8;
    else
      return max_i32;
  }
};

inline constexpr std::int64_t kPlanes = 16;  // that are brought side by side

// E is a type of as many bytes as what is moved.
template <class E>
struct PlaneLoops {
  // block[i][p] = planes[p][i] for i < n
  void (*gather)(const E* const* planes, std::int64_t n, E* block) = nullptr;
  // planes[p][i] = block[i][p] for p < count
  void (*scatter)(const E* block, std::int64_t n, std::int64_t count, E* const* planes) = nullptr;
};

struct PoolKernels {
  PoolLoops<float> f32;
  PoolLoops<double> f64;
  PlaneLoops<std::uint8_t> bytes;
  PlaneLoops<float> words;
  PlaneLoops<double> pairs;

  template <class T>
  const PoolLoops<T>& loops() const {
    if constexpr (sizeof(T) == 4)
      return f32;
    else
      return f64;
  }
  template <class E>
  const PlaneLoops<E>& planes() const {
    if constexpr (sizeof(E) == 1)
      return bytes;
    else if constexpr (sizeof(E) == 4)
      return words;
    else
      return pairs;
  }
};

}  // namespace thalweg
