// Planes (NCHW) for kernels that pool neighbouring elements: rows of 16 planes, brought side by side.
//
// Why not vectors along the windows of a row: rows are short where networks pool most (28, 14, 7), and
// each would be spread by the stride, padded and cut at its end; a transposition takes rows as one run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "base/integer.h"
#include "base/scratch.h"
#include "cpu/isa.h"
#include "cpu/pool_rows.h"

namespace thalweg::cpu {

constexpr Steps side_by_side(std::int64_t width) { return {width * kPlanes, kPlanes}; }

// Rows [first, end) of planes plane … plane + 15 of a (N, C, H, W) view, whose rows lie without gaps, in
// memory of their own where pixels are 16 neighbouring elements. Beyond the last plane it is repeated.
template <class E>
class Slab {
 public:
  Slab(const View& v, std::int64_t plane, std::int64_t first, std::int64_t end)
      : view_(v), plane_(plane), first_(first), rows_(end - first), space_(rows_ * v.shape[3] * kPlanes) {}

  Image<E> image() const { return {space_.get(), side_by_side(view_.shape[3]), first_}; }

  void load() const { loops().gather(planes().at, elements(), block()); }
  void store() const {
    loops().scatter(block(), elements(), std::min(kPlanes, count() - plane_), planes().at);
  }

 private:
  using Moved = std::conditional_t<std::is_same_v<E, std::int32_t>, float, E>;
  struct Pointers {
    Moved* at[kPlanes];
  };

  static const PlaneLoops<Moved>& loops() { return kernels().pool.planes<Moved>(); }
  std::int64_t count() const { return view_.shape[0] * view_.shape[1]; }
  std::int64_t elements() const { return rows_ * view_.shape[3]; }
  Moved* block() const { return reinterpret_cast<Moved*>(space_.get()); }

  Pointers planes() const {
    const std::int64_t channels = view_.shape[1], last = count() - 1;
    std::int64_t c = plane_ % channels;
    E* plane = view_.as<E>() + plane_ / channels * view_.strides[0] + c * view_.strides[1];
    Pointers pointers;
    for (std::int64_t p = 0; p < kPlanes; ++p) {
      pointers.at[p] = reinterpret_cast<Moved*>(plane + first_ * view_.strides[2]);
      if (plane_ + p >= last) continue;
      plane += view_.strides[1];
      if (++c == channels) c = 0, plane += view_.strides[0] - channels * view_.strides[1];
    }
    return pointers;
  }

  const View& view_;
  std::int64_t plane_, first_, rows_;
  Scratch<E> space_;
};

}  // namespace thalweg::cpu
