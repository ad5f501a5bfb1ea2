#include <pybind11/stl.h>

#include <string>

#include "bindings/register.h"
#include "ops/layer_norm.h"
#include "ops/norm.h"

namespace thalweg::bindings {
namespace {

std::optional<View> view_of(const Array& array) {
  return array ? std::optional<View>(array.view) : std::nullopt;
}

Activation activation_of(const char* op, const std::optional<std::string>& name) {
  return name ? parse_activation(op, *name) : Activation::identity;
}

// x, whose channel axis has been found.
struct Batch {
  Array x;
  int axis;

  Batch(const char* op, py::handle object, std::int64_t channel_axis) : x(input(object, {op, "x"})) {
    check_float(op, "x", x.view);
    axis = normalize_axis(channel_axis, x.view.rank, {op, "axis"});
  }

  Array channels(DType dtype) const { return empty(x.view.device, dtype, {x.view.shape[axis]}); }
};

py::tuple batch_norm(py::handle x, py::handle gamma_object, py::handle beta_object, py::handle mean_object,
                     py::handle var_object, bool training, double momentum, double eps, std::int64_t axis,
                     py::handle residual_object, const std::optional<std::string>& activation,
                     py::handle count_object) {
  constexpr const char* op = "batch_norm";
  const Batch batch(op, x, axis);
  const Array gamma = optional_input(gamma_object, {op, "gamma"}),
              beta = optional_input(beta_object, {op, "beta"});
  const Array running_mean = optional_input(mean_object, {op, "running_mean"});
  const Array running_var = optional_input(var_object, {op, "running_var"});
  const Array residual = optional_input(residual_object, {op, "residual"});
  const Array count = optional_input(count_object, {op, "count"});
  const ops::BatchNormOptions options{training,      momentum, eps, batch.axis, activation_of(op, activation),
                                      view_of(count)};
  const Array y = empty_like(batch.x.view), mean = batch.channels(DType::f64),
              rstd = batch.channels(DType::f64);
  without_gil([&] {
    ops::batch_norm({batch.x.view, view_of(gamma), view_of(beta), view_of(residual)}, view_of(running_mean),
                    view_of(running_var), options, y.view, mean.view, rstd.view);
  });
  const bool activated = options.activation != Activation::identity;
  return py::make_tuple(y.owner, py::make_tuple(mean.owner, rstd.owner, training,
                                                activated ? py::object(py::str(*activation)) : py::none(),
                                                activated ? y.owner : py::none(), bool(residual)));
}

py::tuple batch_norm_backward(py::handle dy_object, py::handle x, py::handle gamma_object,
                              const py::tuple& saved_objects, std::int64_t axis) {
  constexpr const char* op = "batch_norm_backward";
  if (saved_objects.size() != 6)
    fail<ValueError>(op, ": saved must be what batch_norm returned, got a tuple of ", saved_objects.size());
  const Batch batch(op, x, axis);
  const Array dy = input(dy_object, {op, "dy"}), gamma = optional_input(gamma_object, {op, "gamma"});
  const Array mean = input(saved_objects[0], {op, "saved mean"}),
              rstd = input(saved_objects[1], {op, "saved rstd"});
  const Array y = optional_input(saved_objects[4], {op, "saved y"});
  const ops::BatchNormSaved saved{mean.view, rstd.view, py::cast<bool>(saved_objects[2]),
                                  activation_of(op, py::cast<std::optional<std::string>>(saved_objects[3])),
                                  view_of(y)};
  const DType dtype = batch.x.view.dtype;
  const Array dx = empty_like(batch.x.view), dgamma = batch.channels(dtype), dbeta = batch.channels(dtype);
  const bool has_residual = py::cast<bool>(saved_objects[5]);
  const Array dresidual = has_residual ? empty_like(batch.x.view) : Array{};
  without_gil([&] {
    ops::batch_norm_backward(dy.view, batch.x.view, view_of(gamma), saved, batch.axis,
                             {dx.view, dgamma.view, dbeta.view, view_of(dresidual)});
  });
  if (has_residual) return py::make_tuple(dx.owner, dgamma.owner, dbeta.owner, dresidual.owner);
  return py::make_tuple(dx.owner, dgamma.owner, dbeta.owner);
}

py::tuple batch_norm_statistics(py::handle x, std::int64_t axis) {
  const Batch batch("batch_norm_statistics", x, axis);
  const Array mean = batch.channels(DType::f64), m2 = batch.channels(DType::f64);
  const std::int64_t n =
      without_gil([&] { return ops::batch_norm_statistics(batch.x.view, batch.axis, mean.view, m2.view); });
  return py::make_tuple(n, mean.owner, m2.owner);
}

py::object batch_norm_apply(py::handle x, py::handle gamma_object, py::handle beta_object,
                            py::handle mean_object, py::handle rstd_object, std::int64_t axis,
                            py::handle residual_object, const std::optional<std::string>& activation) {
  constexpr const char* op = "batch_norm_apply";
  const Batch batch(op, x, axis);
  const Array gamma = optional_input(gamma_object, {op, "gamma"}),
              beta = optional_input(beta_object, {op, "beta"});
  const Array mean = input(mean_object, {op, "mean"}), rstd = input(rstd_object, {op, "rstd"});
  const Array residual = optional_input(residual_object, {op, "residual"}), y = empty_like(batch.x.view);
  const Activation fused = activation_of(op, activation);
  without_gil([&] {
    ops::batch_norm_apply({batch.x.view, view_of(gamma), view_of(beta), view_of(residual)}, mean.view,
                          rstd.view, batch.axis, fused, y.view);
  });
  return y.owner;
}

py::tuple batch_norm_backward_sums(py::handle dy_object, py::handle x, py::handle mean_object,
                                   py::handle rstd_object, std::int64_t axis) {
  constexpr const char* op = "batch_norm_backward_sums";
  const Batch batch(op, x, axis);
  const Array dy = input(dy_object, {op, "dy"});
  const Array mean = input(mean_object, {op, "mean"}), rstd = input(rstd_object, {op, "rstd"});
  const Array sum_dy = batch.channels(DType::f64), sum_dy_xhat = batch.channels(DType::f64);
  without_gil([&] {
    ops::batch_norm_backward_sums(dy.view, batch.x.view, mean.view, rstd.view, batch.axis, sum_dy.view,
                                  sum_dy_xhat.view);
  });
  return py::make_tuple(sum_dy.owner, sum_dy_xhat.owner);
}

py::object batch_norm_backward_apply(py::handle dy_object, py::handle x, py::handle gamma_object,
                                     py::handle mean_object, py::handle rstd_object, py::handle sum_dy_object,
                                     py::handle sum_dy_xhat_object, std::int64_t n, std::int64_t axis) {
  constexpr const char* op = "batch_norm_backward_apply";
  const Batch batch(op, x, axis);
  const Array dy = input(dy_object, {op, "dy"}), gamma = optional_input(gamma_object, {op, "gamma"});
  const Array mean = input(mean_object, {op, "mean"}), rstd = input(rstd_object, {op, "rstd"});
  const Array sum_dy = input(sum_dy_object, {op, "sum_dy"});
  const Array sum_dy_xhat = input(sum_dy_xhat_object, {op, "sum_dy_xhat"}), dx = empty_like(batch.x.view);
  without_gil([&] {
    ops::batch_norm_backward_apply(dy.view, batch.x.view, view_of(gamma), mean.view, rstd.view,
                                   {sum_dy.view, sum_dy_xhat.view, n}, batch.axis, dx.view);
  });
  return dx.owner;
}

// The number of rows of x: its elements but for the last axis.
std::int64_t rows_of(const View& x) {
  std::int64_t rows = 1;
  for (int i = 0; i + 1 < x.rank; ++i) rows *= x.shape[i];
  return rows;
}

py::tuple layer_norm(py::handle x_object, py::handle gamma_object, py::handle beta_object, double eps) {
  constexpr const char* op = "layer_norm";
  const Array x = input(x_object, {op, "x"});
  check_float(op, "x", x.view);
  const Array gamma = optional_input(gamma_object, {op, "gamma"}),
              beta = optional_input(beta_object, {op, "beta"});
  const Array y = empty_like(x.view), mean = empty(x.view.device, DType::f64, {rows_of(x.view)}),
              rstd = empty_like(mean.view);
  without_gil(
      [&] { ops::layer_norm({x.view, view_of(gamma), view_of(beta), eps, y.view, mean.view, rstd.view}); });
  return py::make_tuple(y.owner, py::make_tuple(mean.owner, rstd.owner));
}

py::tuple layer_norm_backward(py::handle dy_object, py::handle x_object, py::handle gamma_object,
                              const py::tuple& saved) {
  constexpr const char* op = "layer_norm_backward";
  if (saved.size() != 2)
    fail<ValueError>(op, ": saved must be what layer_norm returned, got a tuple of ", saved.size());
  const Array dy = input(dy_object, {op, "dy"}), x = input(x_object, {op, "x"});
  check_float(op, "x", x.view);
  const Array gamma = optional_input(gamma_object, {op, "gamma"});
  const Array mean = input(saved[0], {op, "saved mean"}), rstd = input(saved[1], {op, "saved rstd"});
  const Array dx = empty_like(x.view);
  const std::int64_t length = x.view.rank ? x.view.shape[x.view.rank - 1] : 0;
  const Array dgamma = empty(x.view.device, x.view.dtype, {length}), dbeta = empty_like(dgamma.view);
  without_gil([&] {
    ops::layer_norm_backward(
        {dy.view, x.view, view_of(gamma), mean.view, rstd.view, dx.view, dgamma.view, dbeta.view});
  });
  return py::make_tuple(dx.owner, dgamma.owner, dbeta.owner);
}

}  // namespace

void register_norm(py::module_& m) {
  using py::arg;
  m.def("batch_norm", &batch_norm, arg("x"), arg("gamma"), arg("beta"), arg("running_mean"),
        arg("running_var"), py::kw_only(), arg("training"), arg("momentum") = 0.1, arg("eps") = 1e-5,
        arg("axis") = 1, arg("residual") = py::none(), arg("activation") = py::none(),
        arg("count") = py::none());
  m.def("batch_norm_backward", &batch_norm_backward, arg("dy"), arg("x"), arg("gamma"), arg("saved"),
        py::kw_only(), arg("axis") = 1);
  m.def("batch_norm_statistics", &batch_norm_statistics, arg("x"), py::kw_only(), arg("axis") = 1);
  m.def("batch_norm_apply", &batch_norm_apply, arg("x"), arg("gamma"), arg("beta"), arg("mean"), arg("rstd"),
        py::kw_only(), arg("axis") = 1, arg("residual") = py::none(), arg("activation") = py::none());
  m.def("batch_norm_backward_sums", &batch_norm_backward_sums, arg("dy"), arg("x"), arg("mean"), arg("rstd"),
        py::kw_only(), arg("axis") = 1);
  m.def("batch_norm_backward_apply", &batch_norm_backward_apply, arg("dy"), arg("x"), arg("gamma"),
        arg("mean"), arg("rstd"), arg("sum_dy"), arg("sum_dy_xhat"), arg("n"), py::kw_only(),
        arg("axis") = 1);
  m.def("layer_norm", &layer_norm, arg("x"), arg("gamma"), arg("beta"), py::kw_only(), arg("eps") = 1e-5);
  m.def("layer_norm_backward", &layer_norm_backward, arg("dy"), arg("x"), arg("gamma"), arg("saved"));
}

}  // namespace thalweg::bindings
