#include <string_view>

#include "bindings/register.h"
#include "ops/matmul.h"

namespace thalweg::bindings {
namespace {

std::string_view text(py::handle object, Argument argument) {
  Py_ssize_t size = 0;
  const char* data = PyUnicode_Check(object.ptr()) ? PyUnicode_AsUTF8AndSize(object.ptr(), &size) : nullptr;
  if (!data) {
    PyErr_Clear();
    fail<TypeError>(argument.function, ": ", argument.name, " must be a string, got ",
                    Py_TYPE(object.ptr())->tp_name);
  }
  return {data, static_cast<std::size_t>(size)};
}

py::object matmul(py::handle a, py::handle b, py::handle out, bool accumulate, py::handle bias,
                  py::handle activation, py::handle precision) {
  const Array left = input(a, {"matmul", "a"}), right = input(b, {"matmul", "b"});
  const Array addend = optional_input(bias, {"matmul", "bias"});
  ops::MatmulOptions options;
  options.accumulate = accumulate;
  options.precision = precision.is_none()
                          ? ops::matmul_precision()
                          : ops::parse_precision("matmul", text(precision, {"matmul", "precision"}));
  if (!activation.is_none())
    options.activation = parse_activation("matmul", text(activation, {"matmul", "activation"}));
  if (addend) options.bias = &addend.view;
  Array result = optional_output(out, {"matmul", "out"});
  if (!result) {
    if (accumulate)
      fail<ValueError>("matmul: accumulate=True adds to out, but out is None; pass the array to add to");
    const ops::MatmulShape shape = ops::matmul_shape(left.view, right.view);
    result = empty(left.view.device, left.view.dtype, shape.extents, shape.rank);
  }
  without_gil([&] { ops::matmul(left.view, right.view, result.view, options); });
  return result.owner;
}

}  // namespace

void register_matmul(py::module_& m) {
  m.def("matmul", &matmul, py::arg("a"), py::arg("b"), py::kw_only(), py::arg("out") = py::none(),
        py::arg("accumulate") = false, py::arg("bias") = py::none(), py::arg("activation") = py::none(),
        py::arg("precision") = py::none());
  m.def(
      "set_matmul_precision",
      [](py::handle precision) {
        ops::set_matmul_precision(ops::parse_precision(
            "set_matmul_precision", text(precision, {"set_matmul_precision", "precision"})));
      },
      py::arg("precision"));
  m.def("get_matmul_precision", [] { return ops::name_of(ops::matmul_precision()); });
}

}  // namespace thalweg::bindings
