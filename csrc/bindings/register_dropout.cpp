#include <limits>

#include "bindings/register.h"
#include "ops/dropout.h"

namespace thalweg::bindings {
namespace {

// An integer that Word can hold: refused rather than wrapped, since two masks would become one.
template <class Word>
Word word(py::handle object, Argument argument) {
  if (!PyIndex_Check(object.ptr()) || PyBool_Check(object.ptr()))
    fail<TypeError>(argument.function, ": ", argument.name, " must be an int, got ",
                    std::string(py::str(py::type::of(object).attr("__name__"))));
  const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(object.ptr()));
  if (!integer) throw py::error_already_set();
  const unsigned long long value = PyLong_AsUnsignedLongLong(integer.ptr());
  const bool failed = value == static_cast<unsigned long long>(-1) && PyErr_Occurred();
  PyErr_Clear();
  if (failed || value > std::numeric_limits<Word>::max())
    fail<ValueError>(argument.function, ": ", argument.name, " must be between 0 and ",
                     std::numeric_limits<Word>::max(), ", got ", std::string(py::str(integer)));
  return static_cast<Word>(value);
}

py::object dropout(py::handle x, double p, py::handle seed, py::handle step, py::handle module,
                   py::handle sample_offset, py::handle source_object) {
  const Array in = input(x, {"dropout", "x"});
  check_float("dropout", "x", in.view);
  const DropoutOptions options{p, word<std::uint64_t>(seed, {"dropout", "seed"}),
                               word<std::uint32_t>(step, {"dropout", "step"}),
                               word<std::uint32_t>(module, {"dropout", "module"}),
                               word<std::uint32_t>(sample_offset, {"dropout", "sample_offset"})};
  const Array source = optional_input(source_object, {"dropout", "source"}), result = empty_like(in.view);
  const auto counters = source ? std::optional(source.view) : std::nullopt;
  without_gil([&] { ops::dropout(in.view, options, counters, result.view); });
  return result.owner;
}

}  // namespace

void register_dropout(py::module_& m) {
  m.def("dropout", &dropout, py::arg("x"), py::arg("p"), py::kw_only(), py::arg("seed") = 0,
        py::arg("step") = 0, py::arg("module") = 0, py::arg("sample_offset") = 0,
        py::arg("source") = py::none());
}

}  // namespace thalweg::bindings
