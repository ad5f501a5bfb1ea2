// The extension module thalweg._core. Python's signatures and docstrings: python/thalweg/_core.pyi.
#include "base/error.h"
#include "bindings/register.h"

namespace thalweg::bindings {

PYBIND11_MODULE(_core, m) {
  m.doc() = "Compiled kernels of thalweg.";
  m.attr("__version__") = THALWEG_VERSION;
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const ValueError& error) {
      py::set_error(PyExc_ValueError, error.what());
    } catch (const TypeError& error) {
      py::set_error(PyExc_TypeError, error.what());
    } catch (const DeviceError& error) {
      py::set_error(PyExc_RuntimeError, error.what());
    }
  });
  register_machine(m);
  register_cuda(m);
  register_elementwise(m);
  register_reduce(m);
  register_softmax(m);
  register_norm(m);
  register_dropout(m);
  register_pool(m);
  register_lrn(m);
  register_matmul(m);
  register_conv(m);
  register_optim(m);
  register_plan(m);
}

}  // namespace thalweg::bindings
