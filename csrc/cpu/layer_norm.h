// Layer normalisation over the last axis. Inputs of any strides (copied first where they are not
// C-contiguous), outputs C-contiguous. mean and rstd: one double per row.
#pragma once

#include <optional>

#include "base/view.h"

namespace thalweg::cpu {

struct LayerNormArguments {
  View x;                           // (…, C)
  std::optional<View> gamma, beta;  // (C,), 1 and 0 where absent
  double eps;
  View y, mean, rstd;
};

void layer_norm(const LayerNormArguments& a);

struct LayerNormGradient {
  View dy, x;
  std::optional<View> gamma;
  View mean, rstd;
  View dx, dgamma, dbeta;
};

void layer_norm_backward(const LayerNormGradient& a);

}  // namespace thalweg::cpu
