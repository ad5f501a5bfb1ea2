#include "bindings/register.h"
namespace thalweg::bindings {
void register_optim(py::module_&) {}
}  // namespace thalweg::bindings
