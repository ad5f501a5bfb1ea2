#include <algorithm>
#include <string_view>

#include "bindings/register.h"
#include "ops/matmul.h"

namespace thalweg::bindings {
namespace {

constexpr double kShort = 1e5;  // elements of A times elements of C

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
  const auto run = [&] { ops::matmul(left.view, right.view, result.view, options); };
  // Giving up the interpreter lock takes 0.1 µs, as much as a small product.
  if (static_cast<double>(left.view.elements()) * static_cast<double>(result.view.elements()) < kShort)
    run();
  else
    without_gil(run);
  return result.owner;
}

// pybind11 takes 0.4 µs to sort out seven arguments. So the function of the module is this one: it
// sorts out those of a call without errors, and leaves all others to `checked`.
constexpr const char* kArguments[] = {"a", "b", "out", "accumulate", "bias", "activation", "precision"};
constexpr int kCount = 7;
PyObject* names[kCount];  // interned, as the keywords of a call are
PyObject* checked;

bool sort_arguments(PyObject* const* args, Py_ssize_t positional, PyObject* keywords, PyObject** sorted) {
  if (positional != 2) return false;
  std::copy_n(args, positional, sorted);
  for (Py_ssize_t i = 0; keywords && i < PyTuple_GET_SIZE(keywords); ++i) {
    PyObject** const at = std::find(names, names + kCount, PyTuple_GET_ITEM(keywords, i));
    if (at == names + kCount || at < names + 2) return false;
    sorted[at - names] = args[positional + i];
  }
  return sorted[3] == Py_False || sorted[3] == Py_True;
}

PyObject* matmul_call(PyObject*, PyObject* const* args, Py_ssize_t count, PyObject* keywords) {
  PyObject* sorted[kCount] = {nullptr, nullptr, Py_None, Py_False, Py_None, Py_None, Py_None};
  if (sort_arguments(args, count, keywords, sorted)) {
    try {
      return matmul(sorted[0], sorted[1], sorted[2], sorted[3] == Py_True, sorted[4], sorted[5], sorted[6])
          .release()
          .ptr();
    } catch (...) {  // found before anything was written: `checked` finds and reports it again
    }
  }
  return PyObject_Vectorcall(checked, args, static_cast<std::size_t>(count), keywords);
}

PyMethodDef matmul_method = {
    "matmul", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(&matmul_call)),
    METH_FASTCALL | METH_KEYWORDS,
    "matmul(a, b, *, out=None, accumulate=False, bias=None, activation=None, precision=None)\n--\n\n"};

DType parse_dtype(std::string_view name) {
  for (const DType dtype : {DType::f32, DType::f64, DType::bf16})
    if (name == name_of(dtype)) return dtype;
  fail<ValueError>("matmul_path: dtype must be 'float32', 'float64' or 'bfloat16', got '", name, "'");
}

py::tuple matmul_path(std::int64_t m, std::int64_t k, std::int64_t n, py::handle dtype,
                      py::handle precision) {
  const ops::MatmulPath path = ops::matmul_path(
      m, k, n, parse_dtype(text(dtype, {"matmul_path", "dtype"})),
      precision.is_none()
          ? ops::matmul_precision()
          : ops::parse_precision("matmul_path", text(precision, {"matmul_path", "precision"})));
  return py::make_tuple(path.path, path.reason);
}

}  // namespace

void register_matmul(py::module_& m) {
  checked = py::cpp_function(&matmul, py::name("matmul"), py::arg("a"), py::arg("b"), py::kw_only(),
                             py::arg("out") = py::none(), py::arg("accumulate") = false,
                             py::arg("bias") = py::none(), py::arg("activation") = py::none(),
                             py::arg("precision") = py::none())
                .release()
                .ptr();
  for (int i = 0; i < kCount; ++i) names[i] = PyUnicode_InternFromString(kArguments[i]);
  m.attr("matmul") = py::reinterpret_steal<py::object>(
      PyCFunction_NewEx(&matmul_method, nullptr, py::str("thalweg._core").release().ptr()));
  m.def(
      "set_matmul_precision",
      [](py::handle precision) {
        ops::set_matmul_precision(ops::parse_precision(
            "set_matmul_precision", text(precision, {"set_matmul_precision", "precision"})));
      },
      py::arg("precision"));
  m.def("matmul_path", &matmul_path, py::arg("m"), py::arg("k"), py::arg("n"), py::kw_only(),
        py::arg("dtype") = "float32", py::arg("precision") = py::none());
  m.def("get_matmul_precision", [] { return ops::name_of(ops::matmul_precision()); });
}

}  // namespace thalweg::bindings
