#include "bindings/pixels.h"
#include "bindings/register.h"
#include "ops/lrn.h"

namespace thalweg::bindings {
namespace {

py::object local_response_norm(py::handle x_object, std::int64_t size, double alpha, double beta, double k) {
  constexpr const char* op = "local_response_norm";
  const Array x = input(x_object, {op, "x"});
  const cpu::LrnOptions options{size, alpha, beta, k};
  ops::check_local_response_norm(op, x.view, options);
  const Array y = empty_pixels(x.view, x.view.dtype, x.view.shape[2], x.view.shape[3], x.view);
  without_gil([&] { ops::local_response_norm(options, x.view, y.view); });
  return y.owner;
}

py::object local_response_norm_backward(py::handle dy_object, py::handle x_object, std::int64_t size,
                                        double alpha, double beta, double k) {
  constexpr const char* op = "local_response_norm_backward";
  const Array dy = input(dy_object, {op, "dy"}), x = input(x_object, {op, "x"});
  const cpu::LrnOptions options{size, alpha, beta, k};
  ops::check_local_response_norm(op, x.view, options);
  const Array dx = empty_pixels(x.view, x.view.dtype, x.view.shape[2], x.view.shape[3], x.view);
  without_gil([&] { ops::local_response_norm_backward(options, dy.view, x.view, dx.view); });
  return dx.owner;
}

}  // namespace

void register_lrn(py::module_& m) {
  using py::arg;
  m.def("local_response_norm", &local_response_norm, arg("x"), arg("size"), arg("alpha") = 1e-4,
        arg("beta") = 0.75, arg("k") = 1.0);
  m.def("local_response_norm_backward", &local_response_norm_backward, arg("dy"), arg("x"), arg("size"),
        arg("alpha") = 1e-4, arg("beta") = 0.75, arg("k") = 1.0);
}

}  // namespace thalweg::bindings
