#include "ops/layer_norm.h"

#include "ops/norm_checks.h"
#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

struct LayerNormLaunch {
  static constexpr const char* kName = "layer_norm";
  cpu::LayerNormArguments arguments;

  double flops() const { return 9 * elements_of(arguments.x); }
  double bytes() const { return arguments.x.bytes() + arguments.y.bytes(); }
  void run() const {
    refuse_cuda(kName, arguments.x);
    cpu::layer_norm(arguments);
  }
  void visit(Fields& f) const {
    f.read(arguments.x);
    f.read(arguments.gamma);
    f.read(arguments.beta);
    f.number("eps", arguments.eps);
    for (const View* out : {&arguments.y, &arguments.mean, &arguments.rstd}) f.write(*out);
  }
};

struct LayerNormBackwardLaunch {
  static constexpr const char* kName = "layer_norm_backward";
  cpu::LayerNormGradient arguments;

  double flops() const { return 16 * elements_of(arguments.x); }
  double bytes() const { return arguments.dy.bytes() + arguments.x.bytes() + arguments.dx.bytes(); }
  void run() const {
    refuse_cuda(kName, arguments.x);
    cpu::layer_norm_backward(arguments);
  }
  void visit(Fields& f) const {
    for (const View* in : {&arguments.dy, &arguments.x, &arguments.mean, &arguments.rstd}) f.read(*in);
    f.read(arguments.gamma);
    for (const View* out : {&arguments.dx, &arguments.dgamma, &arguments.dbeta}) f.write(*out);
  }
};

std::int64_t last_extent(const char* op, const View& x) {
  check_float(op, "x", x);
  if (x.rank == 0) fail<ValueError>(op, ": x must have at least 1 dimension, got shape ()");
  return x.shape[x.rank - 1];
}

}  // namespace

void layer_norm(const cpu::LayerNormArguments& a) {
  constexpr const char* op = "layer_norm";
  const std::int64_t length = last_extent(op, a.x);
  check_vector(op, "gamma", a.gamma, a.x, length);
  check_vector(op, "beta", a.beta, a.x, length);
  check_eps(op, a.eps);
  launch(LayerNormLaunch{a});
}

void layer_norm_backward(const cpu::LayerNormGradient& a) {
  constexpr const char* op = "layer_norm_backward";
  const std::int64_t length = last_extent(op, a.x), rows = a.x.elements() / std::max<std::int64_t>(1, length);
  check_like_x(op, "dy", a.dy, a.x);
  check_vector(op, "gamma", a.gamma, a.x, length);
  for (const View* saved : {&a.mean, &a.rstd})
    if (saved->dtype != DType::f64 || saved->rank != 1 || !saved->contiguous() ||
        (length != 0 && saved->shape[0] != rows))
      fail<ValueError>(op, ": saved must be what layer_norm returned for x");
  launch(LayerNormBackwardLaunch{a});
}

}  // namespace thalweg::ops
