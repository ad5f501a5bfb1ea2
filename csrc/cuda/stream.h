// A CUDA stream as the rest of the package sees it: cudaStream_t without CUDA's headers.
#pragma once

namespace thalweg::cuda {

using Stream = void*;

}  // namespace thalweg::cuda
