// What module.cpp registers: one function per family, defined in register_<family>.cpp.
#pragma once

#include "bindings/array.h"

namespace thalweg::bindings {

void register_machine(py::module_& m);
void register_cuda(py::module_& m);
void register_elementwise(py::module_& m);
void register_reduce(py::module_& m);
void register_softmax(py::module_& m);
void register_norm(py::module_& m);
void register_dropout(py::module_& m);
void register_pool(py::module_& m);
void register_lrn(py::module_& m);
void register_matmul(py::module_& m);
void register_conv(py::module_& m);
void register_optim(py::module_& m);
void register_plan(py::module_& m);

}  // namespace thalweg::bindings
