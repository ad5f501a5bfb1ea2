// 2-D convolution and its gradients, with PyTorch's meaning of every option.
#pragma once

#include <cstdint>
#include <optional>

#include "base/view.h"
#include "cpu/conv.h"
#include "ops/matmul.h"
#include "rules/activation.h"

namespace thalweg::ops {

struct ConvOptions {
  Extents stride{1, 1};
  Extents before{0, 0}, after{0, 0};  // zeros above and left, below and right
  Extents dilation{1, 1};
  std::int64_t groups = 1;
  Precision precision = Precision::highest;
};

// The shape of a result, and whether its channels are to be neighbours in memory: as those of the images
// that it is made from.
struct ConvShape {
  std::int64_t extents[4];
  bool channels_last;
};

ConvShape conv2d_shape(const View& x, const View& weight, const ConvOptions& options);
ConvShape conv2d_data_gradient_shape(const View& dy, const View& weight, Extents size,
                                     const ConvOptions& options);
ConvShape conv2d_weight_gradient_shape(const View& dy, const View& x, Extents kernel,
                                       const ConvOptions& options);

// Outputs are new arrays of the shapes above.
void conv2d(const View& x, const View& weight, const std::optional<View>& bias, Activation activation,
            const ConvOptions& options, const View& y);
void conv2d_data_gradient(const View& dy, const View& weight, const ConvOptions& options, const View& dx);
void conv2d_weight_gradient(const View& dy, const View& x, const ConvOptions& options, const View& dw);

}  // namespace thalweg::ops
