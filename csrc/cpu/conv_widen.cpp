#include "cpu/conv_widen.h"

#include <memory>

#include "cpu/widen.h"

namespace thalweg {
namespace {

// float32 copies of arrays whose elements are counted first, so that memory is there before anything is
// written.
class WideArrays {
 public:
  explicit WideArrays(std::int64_t elements)
      : memory_(std::make_unique_for_overwrite<float[]>(static_cast<std::size_t>(elements))),
        next_(memory_.get()) {}

  // An array like v, of which nothing is copied.
  View like(const View& v) {
    View copy = v;
    copy.data = next_;
    copy.dtype = DType::f32;
    std::int64_t stride = 1;
    for (int i = v.rank - 1; i >= 0; --i) {
      const int axis = axis_of(v, i);
      copy.strides[axis] = stride;
      stride *= v.shape[axis];
    }
    next_ += stride;
    return copy;
  }
  View of(const View& v) {
    if (v.dtype == DType::f32) return v;
    const View copy = like(v);
    widen(layout_of(v), v.data, copy.as<float>());
    return copy;
  }
  static void store(const View& copy, const View& v) { narrow(layout_of(v), copy.as<float>(), v.data); }

 private:
  // Axis number i in memory order: channels last where they are neighbours.
  static int axis_of(const View& v, int i) {
    constexpr int kChannelsLast[] = {0, 2, 3, 1};
    return v.rank == 4 && v.strides[1] == 1 && v.shape[1] > 1 ? kChannelsLast[i] : i;
  }
  static WideLayout layout_of(const View& v) {
    WideLayout layout;
    for (int i = 0; i < v.rank; ++i) layout.add(v.shape[axis_of(v, i)], v.strides[axis_of(v, i)]);
    return layout;
  }

  std::unique_ptr<float[]> memory_;
  float* next_;
};

// With the bound of multiply-adds at every precision.
ConvGeometry exactly(ConvGeometry geometry) {
  geometry.precision = Precision::strict;
  return geometry;
}

}  // namespace

void conv2d_widened(const ConvGeometry& geometry, const View& x, const View& weight,
                    const std::optional<View>& bias, Activation activation, const View& y) {
  WideArrays arrays(x.elements() + weight.elements() + y.elements() + (bias ? bias->elements() : 0));
  const View sums = arrays.like(y);
  const auto wide_bias = bias ? std::optional(arrays.of(*bias)) : std::nullopt;
  conv2d(exactly(geometry), arrays.of(x), arrays.of(weight), wide_bias, activation, sums);
  WideArrays::store(sums, y);
}

void conv2d_data_gradient_widened(const ConvGeometry& geometry, const View& dy, const View& weight,
                                  const View& dx) {
  WideArrays arrays(dy.elements() + weight.elements() + dx.elements());
  const View sums = arrays.like(dx);
  conv2d_data_gradient(exactly(geometry), arrays.of(dy), arrays.of(weight), sums);
  WideArrays::store(sums, dx);
}

void conv2d_weight_gradient_widened(const ConvGeometry& geometry, const View& dy, const View& x,
                                    const View& dw) {
  WideArrays arrays(dy.elements() + x.elements() + dw.elements());
  const View sums = arrays.like(dw);
  conv2d_weight_gradient(exactly(geometry), arrays.of(dy), arrays.of(x), sums);
  WideArrays::store(sums, dw);
}

}  // namespace thalweg
