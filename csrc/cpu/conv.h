// 2-D convolution and its gradients: blocking, packing, threads. Knows no instruction set.
//
// Inside, images are channels-last: a block of output rows sees a window of the image, which is used in
// place or copied into a buffer that stays in L2, with zeros around it (conv_window.h). Nothing is
// lowered to a matrix. Bits: docs/numerics.md.
#pragma once

#include <cstdint>
#include <optional>
#include <ostream>

#include "base/view.h"
#include "rules/activation.h"
#include "rules/precision.h"

namespace thalweg {

struct Extents {
  std::int64_t height, width;
};
inline std::ostream& operator<<(std::ostream& os, Extents e) {
  return os << '(' << e.height << ", " << e.width << ')';
}

// x (images, channels, x.height, x.width), weight (outputs, channels / groups, kernel), y (images,
// outputs, y.height, y.width); `padding` is that above and left.
struct ConvGeometry {
  std::int64_t images, channels, outputs, groups;
  Extents x, y, kernel, stride, padding, dilation;
  Precision precision = Precision::highest;
};

// Whether float32 may round more for fewer multiplications (conv_winograd.cpp).
inline bool fewer_products(Precision precision) {
  return precision == Precision::high || precision == Precision::medium;
}

// All arrays share one floating dtype and may have any strides; outputs overlap nothing. Of bfloat16 arrays
// sums are float32, rounded once; their bias may be float32.

// y = activation(x * weight + bias)
void conv2d(const ConvGeometry& geometry, const View& x, const View& weight, const std::optional<View>& bias,
            Activation activation, const View& y);

void conv2d_data_gradient(const ConvGeometry& geometry, const View& dy, const View& weight, const View& dx);

void conv2d_weight_gradient(const ConvGeometry& geometry, const View& dy, const View& x, const View& dw);

}  // namespace thalweg
