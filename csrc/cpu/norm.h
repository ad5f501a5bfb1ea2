// Batch normalisation (Ioffe & Szegedy 2015). x is (N, C) or (N, C, …) with any channel axis.
//
// The fused calls compose the halves, group of channels by group of channels, and give their bits.
// Inputs of any strides; those that are not C-contiguous are copied first. Outputs are C-contiguous.
// mean, rstd, m2 and the sums are C-contiguous doubles, one per channel.
#pragma once

#include <optional>

#include "base/view.h"
#include "rules/activation.h"

namespace thalweg::cpu {

struct BatchNormArguments {
  View x, y;
  int axis;
  std::optional<View> gamma, beta;  // 1 and 0 where absent
  std::optional<View> residual;     // added before the activation
  Activation activation;            // one whose gradient its output determines
};

void batch_norm_statistics(const View& x, int axis, double* mean, double* m2);
void batch_norm_apply(const BatchNormArguments& a, const double* mean, const double* rstd);
// Statistics of x itself, then apply.
void batch_norm_train(const BatchNormArguments& a, double eps, double* mean, double* m2, double* rstd);

struct BatchNormGradient {
  View dy, x;
  int axis;
  std::optional<View> gamma;
  Activation activation;
  std::optional<View> y;  // output of the activation
  View dx;
  std::optional<View> dresidual;
};

void batch_norm_backward_sums(const View& dy, const View& x, int axis, const double* mean, const double* rstd,
                              double* sum_dy, double* sum_dy_xhat);
// n: the elements behind the sums; 0 for fixed statistics, through which no gradient flows.
void batch_norm_backward_apply(const BatchNormGradient& a, const double* mean, const double* rstd,
                               const double* sum_dy, const double* sum_dy_xhat, double n);
void batch_norm_backward(const BatchNormGradient& a, const double* mean, const double* rstd, double n,
                         double* sum_dy, double* sum_dy_xhat);

}  // namespace thalweg::cpu
