// Batch and layer normalisation. Outputs are C-contiguous; channel vectors of statistics are doubles.
#pragma once

#include <cstdint>
#include <optional>

#include "base/view.h"
#include "rules/activation.h"

namespace thalweg::ops {

struct BatchNormOptions {
  bool training;
  double momentum, eps;
  int axis;
  Activation activation;
  // int64 (): where given, the momentum is 1 / (count + 1), read when it runs.
  std::optional<View> count = std::nullopt;
};

struct BatchNormInputs {
  View x;
  std::optional<View> gamma, beta, residual;
};

// Writes y, mean and rstd; in training also moves the running statistics, which are outputs then.
void batch_norm(const BatchNormInputs& in, const std::optional<View>& running_mean,
                const std::optional<View>& running_var, const BatchNormOptions& options, const View& y,
                const View& mean, const View& rstd);

struct BatchNormSaved {
  View mean, rstd;
  bool training;
  Activation activation;
  std::optional<View> y;  // the output, where an activation was fused
};

struct BatchNormGradients {
  View dx, dgamma, dbeta;
  std::optional<View> dresidual;
};

void batch_norm_backward(const View& dy, const View& x, const std::optional<View>& gamma,
                         const BatchNormSaved& saved, int axis, const BatchNormGradients& out);

// The halves.
std::int64_t batch_norm_statistics(const View& x, int axis, const View& mean, const View& m2);
void batch_norm_apply(const BatchNormInputs& in, const View& mean, const View& rstd, int axis,
                      Activation activation, const View& y);
void batch_norm_backward_sums(const View& dy, const View& x, const View& mean, const View& rstd, int axis,
                              const View& sum_dy, const View& sum_dy_xhat);

struct BatchNormSums {
  View dy, dy_xhat;
  std::int64_t n;
};
void batch_norm_backward_apply(const View& dy, const View& x, const std::optional<View>& gamma,
                               const View& mean, const View& rstd, const BatchNormSums& sums, int axis,
                               const View& dx);

}  // namespace thalweg::ops
