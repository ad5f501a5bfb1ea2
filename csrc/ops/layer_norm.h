// Layer normalisation over the last axis, and its gradient. Outputs are C-contiguous.
#pragma once

#include "base/view.h"
#include "cpu/layer_norm.h"

namespace thalweg::ops {

// mean and rstd: one double per row of x.
void layer_norm(const cpu::LayerNormArguments& arguments);
void layer_norm_backward(const cpu::LayerNormGradient& arguments);

}  // namespace thalweg::ops
