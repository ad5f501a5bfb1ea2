// Convolutions of bfloat16 arrays by multiply-adds of float32 copies, rounded once at the end.
#pragma once

#include <optional>

#include "cpu/conv.h"

namespace thalweg {

void conv2d_widened(const ConvGeometry& geometry, const View& x, const View& weight,
                    const std::optional<View>& bias, Activation activation, const View& y);
void conv2d_data_gradient_widened(const ConvGeometry& geometry, const View& dy, const View& weight,
                                  const View& dx);
void conv2d_weight_gradient_widened(const ConvGeometry& geometry, const View& dy, const View& x,
                                    const View& dw);

}  // namespace thalweg
