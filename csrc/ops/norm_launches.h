// The launches of batch normalisation.
#pragma once

#include <cmath>
#include <optional>

#include "base/scratch.h"
#include "cpu/norm.h"
#include "ops/norm.h"
#include "ops/norm_checks.h"
#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {

using Optional = std::optional<View>;

inline std::int64_t count_per_channel(const View& x, int axis) {
  std::int64_t n = 1;
  for (int i = 0; i < x.rank; ++i)
    if (i != axis) n *= x.shape[i];
  return n;
}

// --- channel vectors -------------------------------------------------------------------------

// out = (1 - weight) out + weight value
inline void move_towards(const View& out, const double* values, double factor, double weight) {
  with_float_type(out.dtype, [&]<class T>(T) {
    for (std::int64_t c = 0; c < out.shape[0]; ++c) {
      T& slot = out.as<T>()[c * out.strides[0]];
      slot = static_cast<T>((1 - weight) * static_cast<double>(slot) + weight * (factor * values[c]));
    }
  });
}

inline void store(const View& out, const double* values) {
  with_float_type(out.dtype, [&]<class T>(T) {
    for (std::int64_t c = 0; c < out.shape[0]; ++c) out.as<T>()[c] = static_cast<T>(values[c]);
  });
}

inline void visit_inputs(Fields& f, const cpu::BatchNormArguments& a) {
  f.read(a.x);
  for (const Optional* in : {&a.gamma, &a.beta, &a.residual}) f.read(*in);
  f.write(a.y);
  f.number("axis", a.axis);
  f.number("activation", static_cast<double>(a.activation));
}

inline void visit_gradient(Fields& f, const cpu::BatchNormGradient& a) {
  f.read(a.dy);
  f.read(a.x);
  f.read(a.gamma);
  f.read(a.y);
  f.write(a.dx);
  f.write(a.dresidual);
  f.number("axis", a.axis);
  f.number("activation", static_cast<double>(a.activation));
}

// --- launches --------------------------------------------------------------------------------

struct TrainLaunch {
  static constexpr const char* kName = "batch_norm_train";
  cpu::BatchNormArguments arguments;
  Optional running_mean, running_var;
  double momentum, eps;
  Optional count;  // batches so far, from which the momentum follows where it is given
  View mean, rstd;

  double flops() const { return 8 * elements_of(arguments.x); }
  double bytes() const {
    return 2 * arguments.x.bytes() + arguments.y.bytes() + bytes_of(arguments.residual);
  }
  void run() const {
    if (const cuda::Table* table = table_for(mean.device))
      return table->batch_norm_train({arguments, running_mean, running_var, weight(), eps, mean, rstd},
                                     current_stream());
    const Scratch<double> m2(mean.shape[0]);
    cpu::batch_norm_train(arguments, eps, mean.as<double>(), m2.get(), rstd.as<double>());
    const auto n = static_cast<double>(count_per_channel(arguments.x, arguments.axis));
    if (!running_mean || n == 0) return;
    move_towards(*running_mean, mean.as<const double>(), 1, weight());
    move_towards(*running_var, m2.get(), 1 / (n - 1), weight());
  }
  double weight() const {
    return count ? 1 / (static_cast<double>(*count->as<const std::int64_t>()) + 1) : momentum;
  }
  void visit(Fields& f) const {
    visit_inputs(f, arguments);
    f.read(count);
    for (const Optional* running : {&running_mean, &running_var}) {
      f.read(*running);
      f.write(*running);
    }
    f.write(mean);
    f.write(rstd);
    f.number("momentum", momentum);
    f.number("eps", eps);
  }
};

struct ApplyLaunch {
  static constexpr const char* kName = "batch_norm_apply";
  cpu::BatchNormArguments arguments;
  View mean, rstd;

  double flops() const { return 3 * elements_of(arguments.x); }
  double bytes() const { return arguments.x.bytes() + arguments.y.bytes() + bytes_of(arguments.residual); }
  void run() const {
    if (const cuda::Table* table = table_for(arguments.y.device))
      return table->batch_norm_apply(arguments, mean, rstd, current_stream());
    cpu::batch_norm_apply(arguments, Doubles(mean).data(), Doubles(rstd).data());
  }
  void visit(Fields& f) const {
    visit_inputs(f, arguments);
    f.read(mean);
    f.read(rstd);
  }
};

struct StatisticsLaunch {
  static constexpr const char* kName = "batch_norm_statistics";
  View x;
  int axis;
  View mean, m2;

  double flops() const { return 4 * elements_of(x); }
  double bytes() const { return x.bytes(); }
  void run() const {
    if (const cuda::Table* table = table_for(x.device))
      return table->batch_norm_statistics(x, axis, mean, m2, current_stream());
    cpu::batch_norm_statistics(x, axis, mean.as<double>(), m2.as<double>());
  }
  void visit(Fields& f) const {
    f.read(x);
    f.write(mean);
    f.write(m2);
    f.number("axis", axis);
  }
};

struct BackwardLaunch {
  static constexpr const char* kName = "batch_norm_backward";
  cpu::BatchNormGradient arguments;
  View mean, rstd;
  double n;
  View dgamma, dbeta;

  double flops() const { return 10 * elements_of(arguments.x); }
  double bytes() const {
    return 2 * (arguments.dy.bytes() + arguments.x.bytes()) + arguments.dx.bytes() + bytes_of(arguments.y) +
           bytes_of(arguments.dresidual);
  }
  void run() const {
    if (const cuda::Table* table = table_for(arguments.dx.device))
      return table->batch_norm_backward({arguments, mean, rstd, n, dgamma, dbeta}, current_stream());
    const Doubles centers(mean), scales(rstd);
    const Scratch<double> sum_dy(mean.shape[0]), sum_dy_xhat(mean.shape[0]);
    cpu::batch_norm_backward(arguments, centers.data(), scales.data(), n, sum_dy.get(), sum_dy_xhat.get());
    store(dgamma, sum_dy_xhat.get());
    store(dbeta, sum_dy.get());
  }
  void visit(Fields& f) const {
    visit_gradient(f, arguments);
    f.read(mean);
    f.read(rstd);
    f.write(dgamma);
    f.write(dbeta);
    f.number("n", n);
  }
};

struct BackwardSumsLaunch {
  static constexpr const char* kName = "batch_norm_backward_sums";
  View dy, x, mean, rstd;
  int axis;
  View sum_dy, sum_dy_xhat;

  double flops() const { return 4 * elements_of(x); }
  double bytes() const { return dy.bytes() + x.bytes(); }
  void run() const {
    if (const cuda::Table* table = table_for(x.device))
      return table->batch_norm_backward_sums(dy, x, axis, mean, rstd, sum_dy, sum_dy_xhat, current_stream());
    cpu::batch_norm_backward_sums(dy, x, axis, Doubles(mean).data(), Doubles(rstd).data(),
                                  sum_dy.as<double>(), sum_dy_xhat.as<double>());
  }
  void visit(Fields& f) const {
    for (const View* in : {&dy, &x, &mean, &rstd}) f.read(*in);
    f.write(sum_dy);
    f.write(sum_dy_xhat);
    f.number("axis", axis);
  }
};

struct BackwardApplyLaunch {
  static constexpr const char* kName = "batch_norm_backward_apply";
  cpu::BatchNormGradient arguments;
  View mean, rstd;
  BatchNormSums sums;

  double flops() const { return 6 * elements_of(arguments.x); }
  double bytes() const { return arguments.dy.bytes() + arguments.x.bytes() + arguments.dx.bytes(); }
  void run() const {
    if (const cuda::Table* table = table_for(arguments.dx.device))
      return table->batch_norm_backward_apply(arguments, mean, rstd, sums.dy, sums.dy_xhat,
                                              static_cast<double>(sums.n), current_stream());
    cpu::batch_norm_backward_apply(arguments, Doubles(mean).data(), Doubles(rstd).data(),
                                   Doubles(sums.dy).data(), Doubles(sums.dy_xhat).data(),
                                   static_cast<double>(sums.n));
  }
  void visit(Fields& f) const {
    visit_gradient(f, arguments);
    for (const View* in : {&mean, &rstd, &sums.dy, &sums.dy_xhat}) f.read(*in);
    f.number("n", static_cast<double>(sums.n));
  }
};

// Fixed statistics as mean and 1 / sqrt(var + eps).
struct FixedLaunch {
  static constexpr const char* kName = "batch_norm_fixed";
  View running_mean, running_var;
  double eps;
  View mean, rstd;

  double flops() const { return 3 * elements_of(mean); }
  double bytes() const { return running_mean.bytes() + running_var.bytes() + mean.bytes() + rstd.bytes(); }
  void run() const {
    if (const cuda::Table* table = table_for(mean.device))
      return table->batch_norm_fixed(running_mean, running_var, eps, mean, rstd, current_stream());
    store(mean, Doubles(running_mean).data());
    const Doubles variances(running_var);
    for (std::int64_t c = 0; c < rstd.shape[0]; ++c)
      variances.data()[c] = 1 / std::sqrt(variances.data()[c] + eps);
    store(rstd, variances.data());
  }
  void visit(Fields& f) const {
    f.read(running_mean);
    f.read(running_var);
    f.write(mean);
    f.write(rstd);
    f.number("eps", eps);
  }
};

}  // namespace thalweg::ops
