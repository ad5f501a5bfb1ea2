#include "bindings/register.h"

namespace thalweg::bindings {

void register_reduce(py::module_&) {}

}  // namespace thalweg::bindings
