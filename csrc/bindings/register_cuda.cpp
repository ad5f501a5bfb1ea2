#include "bindings/register.h"
#include "plan/device.h"

namespace thalweg::bindings {
namespace {

const cuda::Table* table_of(const py::capsule& capsule) {
  const auto* table = capsule.get_pointer<const cuda::Table>();
  if (std::string_view(capsule.name()) != cuda::kTableCapsule || table->size != sizeof(cuda::Table))
    fail<DeviceError>(
        "install_cuda: the CUDA half was not built from the same sources as _core; rebuild both");
  return table;
}

}  // namespace

void register_cuda(py::module_& m) {
  m.def("has_cuda", &has_table);
  m.def("install_cuda", [](const py::capsule& table) { install_table(table_of(table)); }, py::arg("table"));
  m.def(
      "emulate_cuda",
      [](const py::object& table) {
        emulate_with(table.is_none() ? nullptr : table_of(py::cast<py::capsule>(table)));
      },
      py::arg("table"));
}

}  // namespace thalweg::bindings
