#include "bindings/register.h"

namespace thalweg::bindings {

void register_matmul(py::module_&) {}

}  // namespace thalweg::bindings
