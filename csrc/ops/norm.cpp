#include "ops/norm.h"

#include "ops/counter.h"
#include "ops/norm_checks.h"
#include "ops/norm_launches.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

// --- checks ----------------------------------------------------------------------------------

void check_activation(const char* op, Activation activation) {
  if (activation == Activation::gelu)
    fail<ValueError>(op, ": activation 'gelu' cannot be fused, its gradient needs its input; apply it to y");
}

void check_inputs(const char* op, const BatchNormInputs& in, int axis, Activation activation) {
  check_float(op, "x", in.x);
  check_vector(op, "gamma", in.gamma, in.x, in.x.shape[axis]);
  check_vector(op, "beta", in.beta, in.x, in.x.shape[axis]);
  if (in.residual) check_like_x(op, "residual", *in.residual, in.x);
  check_activation(op, activation);
}

void check_running(const char* op, const BatchNormInputs& in, const Optional& mean, const Optional& var,
                   const BatchNormOptions& options) {
  if (mean.has_value() != var.has_value())
    fail<ValueError>(op, ": running_mean and running_var go together, one of them is None");
  check_vector(op, "running_mean", mean, in.x, in.x.shape[options.axis]);
  check_vector(op, "running_var", var, in.x, in.x.shape[options.axis]);
  if (!options.training && !mean)
    fail<ValueError>(op, ": evaluation needs running_mean and running_var, got None");
  if (!options.training || !mean) return;
  const struct {
    const char* name;
    const Optional& view;
  } outputs[] = {{"running_mean", mean}, {"running_var", var}},
    inputs[] = {{"x", in.x}, {"gamma", in.gamma}, {"beta", in.beta}, {"residual", in.residual}};
  for (const auto& output : outputs) {
    check_output(op, output.name, *output.view);
    for (const auto& input : inputs)
      if (input.view && overlaps(*output.view, *input.view))
        fail<ValueError>(op, ": ", output.name, " shares memory with ", input.name, "; pass a copy");
  }
  if (overlaps(*mean, *var))
    fail<ValueError>(op, ": running_mean shares memory with running_var; pass a copy");
}

void check_numbers(const char* op, const BatchNormInputs& in, const BatchNormOptions& options) {
  check_eps(op, options.eps);
  if (!(options.momentum >= 0 && options.momentum <= 1))
    fail<ValueError>(op, ": momentum must be in [0, 1], got ", options.momentum);
  if (options.training && count_per_channel(in.x, options.axis) == 1)
    fail<ValueError>(op, ": training needs more than one element per channel, x has shape ", Shape{in.x},
                     " and axis ", options.axis, " holds the channels");
  if (options.count) check_counter(op, "count", *options.count);
}

}  // namespace

void batch_norm(const BatchNormInputs& in, const Optional& running_mean, const Optional& running_var,
                const BatchNormOptions& options, const View& y, const View& mean, const View& rstd) {
  constexpr const char* op = "batch_norm";
  check_inputs(op, in, options.axis, options.activation);
  check_running(op, in, running_mean, running_var, options);
  check_numbers(op, in, options);
  const cpu::BatchNormArguments arguments{in.x,    y,           options.axis,      in.gamma,
                                          in.beta, in.residual, options.activation};
  if (options.training)
    return launch(TrainLaunch{arguments, running_mean, running_var, options.momentum, options.eps,
                              options.count, mean, rstd});
  launch(FixedLaunch{*running_mean, *running_var, options.eps, mean, rstd});
  launch(ApplyLaunch{arguments, mean, rstd});
}

void batch_norm_backward(const View& dy, const View& x, const Optional& gamma, const BatchNormSaved& saved,
                         int axis, const BatchNormGradients& out) {
  constexpr const char* op = "batch_norm_backward";
  check_float(op, "x", x);
  check_like_x(op, "dy", dy, x);
  check_vector(op, "gamma", gamma, x, x.shape[axis]);
  check_statistic(op, "saved mean", saved.mean, x, x.shape[axis]);
  check_statistic(op, "saved rstd", saved.rstd, x, x.shape[axis]);
  check_activation(op, saved.activation);
  if (saved.y) check_like_x(op, "saved y", *saved.y, x);
  if (saved.activation != Activation::identity && !saved.y)
    fail<ValueError>(op, ": saved must be what batch_norm returned, it lacks the output");
  const double n = saved.training ? static_cast<double>(count_per_channel(x, axis)) : 0;
  launch(BackwardLaunch{{dy, x, axis, gamma, saved.activation, saved.y, out.dx, out.dresidual},
                        saved.mean,
                        saved.rstd,
                        n,
                        out.dgamma,
                        out.dbeta});
}

std::int64_t batch_norm_statistics(const View& x, int axis, const View& mean, const View& m2) {
  check_float("batch_norm_statistics", "x", x);
  launch(StatisticsLaunch{x, axis, mean, m2});
  return count_per_channel(x, axis);
}

void batch_norm_apply(const BatchNormInputs& in, const View& mean, const View& rstd, int axis,
                      Activation activation, const View& y) {
  constexpr const char* op = "batch_norm_apply";
  check_inputs(op, in, axis, activation);
  check_statistic(op, "mean", mean, in.x, in.x.shape[axis]);
  check_statistic(op, "rstd", rstd, in.x, in.x.shape[axis]);
  launch(ApplyLaunch{{in.x, y, axis, in.gamma, in.beta, in.residual, activation}, mean, rstd});
}

void batch_norm_backward_sums(const View& dy, const View& x, const View& mean, const View& rstd, int axis,
                              const View& sum_dy, const View& sum_dy_xhat) {
  constexpr const char* op = "batch_norm_backward_sums";
  check_float(op, "x", x);
  check_like_x(op, "dy", dy, x);
  check_statistic(op, "mean", mean, x, x.shape[axis]);
  check_statistic(op, "rstd", rstd, x, x.shape[axis]);
  launch(BackwardSumsLaunch{dy, x, mean, rstd, axis, sum_dy, sum_dy_xhat});
}

void batch_norm_backward_apply(const View& dy, const View& x, const Optional& gamma, const View& mean,
                               const View& rstd, const BatchNormSums& sums, int axis, const View& dx) {
  constexpr const char* op = "batch_norm_backward_apply";
  check_float(op, "x", x);
  check_like_x(op, "dy", dy, x);
  check_vector(op, "gamma", gamma, x, x.shape[axis]);
  check_statistic(op, "mean", mean, x, x.shape[axis]);
  check_statistic(op, "rstd", rstd, x, x.shape[axis]);
  check_statistic(op, "sum_dy", sums.dy, x, x.shape[axis]);
  check_statistic(op, "sum_dy_xhat", sums.dy_xhat, x, x.shape[axis]);
  if (sums.n < 1 && x.elements() != 0)
    fail<ValueError>(op, ": n must be the number of elements per channel over all ranks, got ", sums.n);
  launch(BackwardApplyLaunch{{dy, x, axis, gamma, Activation::identity, {}, dx, {}}, mean, rstd, sums});
}

}  // namespace thalweg::ops
