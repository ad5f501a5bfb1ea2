// Axes that several arrays share, and where an element lies in each of them.
#pragma once

#include <cstdint>

#include "base/config.h"
#include "base/view.h"

namespace thalweg::cuda {

template <int kArrays>
struct Layout {
  int rank = 0;
  std::int64_t shape[kMaxRank] = {};
  std::int64_t strides[kArrays][kMaxRank] = {};  // in elements; 0 where an array is broadcast

  // Adds an axis inside the others, and joins it to its neighbour where all arrays allow it.
  void append(std::int64_t extent, const std::int64_t (&stride)[kArrays]) {
    if (extent == 1) return;
    bool joins = rank > 0;
    for (int a = 0; a < kArrays && joins; ++a) joins = strides[a][rank - 1] == stride[a] * extent;
    if (joins) --rank;
    shape[rank] = joins ? shape[rank] * extent : extent;
    for (int a = 0; a < kArrays; ++a) strides[a][rank] = stride[a];
    ++rank;
  }

  std::int64_t elements() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }

  std::int64_t inner_stride(int array) const { return rank ? strides[array][rank - 1] : 0; }

  // Element `index` in C order. The first axis needs no division, and small indices divide in 32 bits,
  // which a GPU does several times faster.
  struct Offsets {
    std::int64_t of[kArrays];
  };
  THALWEG_HOST_DEVICE Offsets offsets(std::int64_t index) const {
    Offsets result = {};
    for (int i = rank - 1; i >= 0; --i) {
      std::int64_t at = index;
      if (i > 0) {
        const bool small = (index | shape[i]) >> 32 == 0;
        const std::int64_t quotient =
            small ? static_cast<std::uint32_t>(index) / static_cast<std::uint32_t>(shape[i])
                  : index / shape[i];
        at = index - quotient * shape[i];
        index = quotient;
      }
      for (int a = 0; a < kArrays; ++a) result.of[a] += at * strides[a][i];
    }
    return result;
  }
};

}  // namespace thalweg::cuda
