// What bindings do while a step of this thread is recorded: nothing that a launch uses may be freed,
// and results are arrays of the recording's own type.
#pragma once

#include "bindings/array.h"

namespace thalweg::bindings {

bool is_recording();
void note_array(const Array& array);  // an argument of an operation
void keep_alive(py::handle object);   // anything else that a launch uses
py::object make_array(const py::dtype& type, const std::vector<py::ssize_t>& shape);
void note_result(const Array& array);

}  // namespace thalweg::bindings
