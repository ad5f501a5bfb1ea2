#include <pybind11/stl.h>

#include "base/parallel.h"
#include "bindings/register.h"
#include "bindings/result_memory.h"
#include "cpu/isa.h"
#include "cpu/limits.h"

namespace thalweg::bindings {

void register_machine(py::module_& m) {
  m.def("isa", [] { return kernels().name; });
  m.def("use_isa", &use_isa, py::arg("name"));
  m.def("available_isas", &available_isas);
  m.def("set_num_threads", &set_num_threads, py::arg("n"), py::call_guard<py::gil_scoped_release>());
  m.def("get_num_threads", &num_threads);
  m.def(
      "measure_limits",
      [](double seconds) {
        const Limits limits = without_gil([&] { return measure_limits(seconds); });
        py::dict result;
        result["fma_f32_gflops"] = limits.fma_f32_gflops;
        result["fma_f64_gflops"] = limits.fma_f64_gflops;
        result["read_gbytes"] = limits.read_gbytes;
        result["triad_gbytes"] = limits.triad_gbytes;
        return result;
      },
      py::arg("seconds") = 0.2);
  m.def("release_memory", &release_memory);
}

}  // namespace thalweg::bindings
