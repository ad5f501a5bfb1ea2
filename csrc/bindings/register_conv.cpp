#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <string>

#include "bindings/register.h"
#include "ops/conv.h"

namespace thalweg::bindings {
namespace {

using Pair = std::array<std::int64_t, 2>;
using Padding = std::array<std::int64_t, 4>;  // above, below, left, right

Extents extents(const Pair& pair) { return {pair[0], pair[1]}; }

ops::ConvOptions options_of(const char* op, const Pair& stride, const Padding& padding, const Pair& dilation,
                            std::int64_t groups, const std::optional<std::string>& precision) {
  return {extents(stride),
          {padding[0], padding[2]},
          {padding[1], padding[3]},
          extents(dilation),
          groups,
          precision ? ops::parse_precision(op, *precision) : ops::matmul_precision()};
}

// A new array of that shape, in either layout.
Array make_result(const View& like, const ops::ConvShape& shape) {
  const auto& [n, c, h, w] = shape.extents;
  if (!shape.channels_last) return empty(like.device, like.dtype, {n, c, h, w});
  Array result = empty(like.device, like.dtype, {n, h, w, c});
  View& v = result.view;
  std::rotate(v.shape + 1, v.shape + 3, v.shape + 4);
  std::rotate(v.strides + 1, v.strides + 3, v.strides + 4);
  result.owner = result.owner.attr("transpose")(0, 3, 1, 2);
  return result;
}

py::object conv2d(py::handle x_object, py::handle weight_object, py::handle bias_object, const Pair& stride,
                  const Padding& padding, const Pair& dilation, std::int64_t groups,
                  const std::optional<std::string>& activation, const std::optional<std::string>& precision) {
  constexpr const char* op = "conv2d";
  const Array x = input(x_object, {op, "x"}), weight = input(weight_object, {op, "weight"});
  const Array bias = optional_input(bias_object, {op, "bias"});
  const ops::ConvOptions options = options_of(op, stride, padding, dilation, groups, precision);
  const Activation fused = activation ? parse_activation(op, *activation) : Activation::identity;
  const Array y = make_result(x.view, ops::conv2d_shape(x.view, weight.view, options));
  without_gil([&] {
    ops::conv2d(x.view, weight.view, bias ? std::optional(bias.view) : std::nullopt, fused, options, y.view);
  });
  return y.owner;
}

py::object conv2d_data_gradient(py::handle dy_object, py::handle weight_object, const Pair& size,
                                const Pair& stride, const Padding& padding, const Pair& dilation,
                                std::int64_t groups, const std::optional<std::string>& precision) {
  constexpr const char* op = "conv2d_data_gradient";
  const Array dy = input(dy_object, {op, "dy"}), weight = input(weight_object, {op, "weight"});
  const ops::ConvOptions options = options_of(op, stride, padding, dilation, groups, precision);
  const Array dx =
      make_result(dy.view, ops::conv2d_data_gradient_shape(dy.view, weight.view, extents(size), options));
  without_gil([&] { ops::conv2d_data_gradient(dy.view, weight.view, options, dx.view); });
  return dx.owner;
}

py::object conv2d_weight_gradient(py::handle dy_object, py::handle x_object, const Pair& kernel,
                                  const Pair& stride, const Padding& padding, const Pair& dilation,
                                  std::int64_t groups, const std::optional<std::string>& precision) {
  constexpr const char* op = "conv2d_weight_gradient";
  const Array dy = input(dy_object, {op, "dy"}), x = input(x_object, {op, "x"});
  const ops::ConvOptions options = options_of(op, stride, padding, dilation, groups, precision);
  const Array dw =
      make_result(dy.view, ops::conv2d_weight_gradient_shape(dy.view, x.view, extents(kernel), options));
  without_gil([&] { ops::conv2d_weight_gradient(dy.view, x.view, options, dw.view); });
  return dw.owner;
}

}  // namespace

void register_conv(py::module_& m) {
  using py::arg;
  m.def("conv2d", &conv2d, arg("x"), arg("weight"), arg("bias"), py::kw_only(), arg("stride"), arg("padding"),
        arg("dilation"), arg("groups"), arg("activation") = py::none(), arg("precision") = py::none());
  m.def("conv2d_data_gradient", &conv2d_data_gradient, arg("dy"), arg("weight"), arg("size"), py::kw_only(),
        arg("stride"), arg("padding"), arg("dilation"), arg("groups"), arg("precision") = py::none());
  m.def("conv2d_weight_gradient", &conv2d_weight_gradient, arg("dy"), arg("x"), arg("kernel"), py::kw_only(),
        arg("stride"), arg("padding"), arg("dilation"), arg("groups"), arg("precision") = py::none());
}

}  // namespace thalweg::bindings
