#include "bindings/register.h"

namespace thalweg::bindings {

void register_softmax(py::module_&) {}

}  // namespace thalweg::bindings
