// Arrays on a GPU: from __cuda_array_interface__ to views, and new ones from CuPy.
#pragma once

#include "bindings/array.h"

namespace thalweg::bindings {

// CuPy arrays and CUDA tensors of PyTorch. Also makes the stream on which the array's library works at
// present the stream of this thread's launches; the arrays of a call come from one library.
// DeviceError where no CUDA half is loaded.
Array from_cuda(py::handle object, Argument argument);

Array empty_on_cuda(DType dtype, const std::int64_t* shape, int rank);

}  // namespace thalweg::bindings
