// Arrays on a GPU: from __cuda_array_interface__ to views, and new ones from CuPy.
#pragma once

#include "bindings/array.h"

namespace thalweg::bindings {

bool is_cuda_array(py::handle object);

// CuPy arrays and CUDA tensors of PyTorch. Also makes the stream on which the array's library works at
// present the stream of this thread's launches; the arrays of a call come from one library.
// DeviceError where no CUDA half is loaded.
Array from_cuda(py::handle object, Argument argument);

// Takes over the stream on which the library of a CUDA array works at present.
void use_stream_of(py::handle object);

Array empty_on_cuda(DType dtype, const std::int64_t* shape, int rank);

}  // namespace thalweg::bindings
