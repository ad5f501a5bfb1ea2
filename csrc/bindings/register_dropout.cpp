#include "bindings/register.h"

namespace thalweg::bindings {

void register_dropout(py::module_&) {}

}  // namespace thalweg::bindings
