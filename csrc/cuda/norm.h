// The arguments of batch normalisation on a device, where statistics stay in device memory: what the
// CPU's calls take as pointers to doubles are views here (float64, or the dtype of x where read).
#pragma once

#include <optional>

#include "cpu/norm.h"

namespace thalweg::cuda {

struct BatchNormTraining {
  cpu::BatchNormArguments arguments;
  std::optional<View> running_mean, running_var;
  double momentum, eps;
  View mean, rstd;  // float64
};

struct BatchNormBackward {
  cpu::BatchNormGradient arguments;
  View mean, rstd;
  double n;            // elements behind the statistics; 0 where they were fixed
  View dgamma, dbeta;  // dtype of x
};

}  // namespace thalweg::cuda
