#include <pybind11/stl.h>

#include <string>

#include "bindings/pixels.h"
#include "bindings/register.h"
#include "ops/pool.h"

namespace thalweg::bindings {
namespace {

ops::PoolOptions options_of(const char* op, py::handle kernel, py::handle stride, py::handle padding,
                            py::handle dilation) {
  ops::PoolOptions options{};
  read_pair(kernel, {op, "kernel"}, options.kernel);
  read_pair(stride.is_none() ? kernel : stride, {op, "stride"}, options.stride);
  read_pair(padding, {op, "padding"}, options.padding);
  read_pair(dilation, {op, "dilation"}, options.dilation);
  return options;
}

py::tuple pair_of(const std::int64_t (&pair)[2]) { return py::make_tuple(pair[0], pair[1]); }

py::tuple max_pool2d(py::handle x_object, py::handle kernel, py::handle stride, py::handle padding,
                     py::handle dilation, bool ceil_mode, const std::optional<std::string>& activation) {
  constexpr const char* op = "max_pool2d";
  const Array x = input(x_object, {op, "x"});
  ops::PoolOptions options = options_of(op, kernel, stride, padding, dilation);
  options.ceil_mode = ceil_mode;
  if (activation && *activation != "relu")
    fail<ValueError>(op, ": activation must be None or 'relu', got '", *activation, "'");
  const cpu::PoolGeometry g = ops::pool_geometry(op, x.view, options);
  const Array y = empty_pixels(x.view, x.view.dtype, g.h.out, g.w.out, x.view);
  const Array index = empty_pixels(x.view, ops::pool_index_type(g), g.h.out, g.w.out, x.view);
  without_gil([&] { ops::max_pool(g, x.view, activation.has_value(), y.view, index.view); });
  return py::make_tuple(y.owner,
                        py::make_tuple(index.owner, pair_of(options.kernel), pair_of(options.stride),
                                       pair_of(options.padding), pair_of(options.dilation), ceil_mode));
}

// What max_pool2d saved, and the windows that it saw.
struct Saved {
  Array index;
  cpu::PoolGeometry geometry;

  Saved(const char* op, const View& x, const py::tuple& saved)
      : index(input(parts(op, saved)[0], {op, "saved"})),
        geometry(ops::pool_geometry(op, x, options(op, saved))) {}

  static const py::tuple& parts(const char* op, const py::tuple& saved) {
    if (saved.size() != 6)
      fail<ValueError>(op, ": saved must be what max_pool2d returned, got a tuple of ", saved.size());
    return saved;
  }
  static ops::PoolOptions options(const char* op, const py::tuple& saved) {
    ops::PoolOptions result = options_of(op, saved[1], saved[2], saved[3], saved[4]);
    result.ceil_mode = py::cast<bool>(saved[5]);
    return result;
  }
};

py::object max_pool2d_backward(py::handle dy_object, py::handle x_object, const py::tuple& saved_objects) {
  constexpr const char* op = "max_pool2d_backward";
  const Array dy = input(dy_object, {op, "dy"}), x = input(x_object, {op, "x"});
  const Saved saved(op, x.view, saved_objects);
  const Array dx = empty_pixels(x.view, x.view.dtype, x.view.shape[2], x.view.shape[3], x.view);
  without_gil([&] { ops::max_pool_backward(saved.geometry, dy.view, saved.index.view, dx.view); });
  return dx.owner;
}

py::object max_pool2d_pick(py::handle x_object, const py::tuple& saved_objects) {
  constexpr const char* op = "max_pool2d_pick";
  const Array x = input(x_object, {op, "x"});
  const Saved saved(op, x.view, saved_objects);
  const cpu::PoolGeometry& g = saved.geometry;
  const Array y = empty_pixels(x.view, x.view.dtype, g.h.out, g.w.out, saved.index.view);
  without_gil([&] { ops::max_pool_pick(g, x.view, saved.index.view, y.view); });
  return y.owner;
}

cpu::PoolGeometry mean_geometry(const char* op, const View& x, py::handle kernel, py::handle stride,
                                py::handle padding, bool ceil_mode, bool count_include_pad) {
  ops::PoolOptions options = options_of(op, kernel, stride, padding, py::int_(1));
  options.ceil_mode = ceil_mode;
  options.count_padding = count_include_pad;
  return ops::pool_geometry(op, x, options);
}

py::object avg_pool2d(py::handle x_object, py::handle kernel, py::handle stride, py::handle padding,
                      bool ceil_mode, bool count_include_pad) {
  constexpr const char* op = "avg_pool2d";
  const Array x = input(x_object, {op, "x"});
  const auto g = mean_geometry(op, x.view, kernel, stride, padding, ceil_mode, count_include_pad);
  const Array y = empty_pixels(x.view, x.view.dtype, g.h.out, g.w.out, x.view);
  without_gil([&] { ops::avg_pool(g, x.view, y.view); });
  return y.owner;
}

py::object avg_pool2d_backward(py::handle dy_object, py::handle x_object, py::handle kernel,
                               py::handle stride, py::handle padding, bool ceil_mode,
                               bool count_include_pad) {
  constexpr const char* op = "avg_pool2d_backward";
  const Array dy = input(dy_object, {op, "dy"}), x = input(x_object, {op, "x"});
  const auto g = mean_geometry(op, x.view, kernel, stride, padding, ceil_mode, count_include_pad);
  const Array dx = empty_pixels(x.view, x.view.dtype, x.view.shape[2], x.view.shape[3], x.view);
  without_gil([&] { ops::avg_pool_backward(g, dy.view, dx.view); });
  return dx.owner;
}

}  // namespace

void register_pool(py::module_& m) {
  using py::arg;
  m.def("max_pool2d", &max_pool2d, arg("x"), arg("kernel"), arg("stride") = py::none(), arg("padding") = 0,
        arg("dilation") = 1, arg("ceil_mode") = false, py::kw_only(), arg("activation") = py::none());
  m.def("max_pool2d_backward", &max_pool2d_backward, arg("dy"), arg("x"), arg("saved"));
  m.def("max_pool2d_pick", &max_pool2d_pick, arg("x"), arg("saved"));
  m.def("avg_pool2d", &avg_pool2d, arg("x"), arg("kernel"), arg("stride") = py::none(), arg("padding") = 0,
        arg("ceil_mode") = false, arg("count_include_pad") = true);
  m.def("avg_pool2d_backward", &avg_pool2d_backward, arg("dy"), arg("x"), arg("kernel"),
        arg("stride") = py::none(), arg("padding") = 0, arg("ceil_mode") = false,
        arg("count_include_pad") = true);
}

}  // namespace thalweg::bindings
