#include "bindings/register.h"

namespace thalweg::bindings {

void register_norm(py::module_&) {}

}  // namespace thalweg::bindings
