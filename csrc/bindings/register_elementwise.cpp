#include "bindings/register.h"

namespace thalweg::bindings {

void register_elementwise(py::module_&) {}

}  // namespace thalweg::bindings
