// The one way a kernel starts, and memory that lives as long as a launch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/error.h"
#include "cuda/primitives.cuh"
#include "cuda/stream.h"

#ifndef THALWEG_CUDA_EMULATED
#include <cuda_runtime.h>
#endif

namespace thalweg::cuda {

inline constexpr std::size_t kMaxArgumentBytes = 32764;  // of a kernel, since CUDA 12.1 on sm_70

#ifdef THALWEG_CUDA_EMULATED

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t shared_bytes, Stream,
            const Args&... args) {
  static_assert((sizeof(Params) + ... + 0) <= kMaxArgumentBytes);
  // By value, as a GPU copies them: a kernel that writes to its argument must not change the caller's.
  emulate::run_grid(grid, block, shared_bytes, [&] { kernel(static_cast<Params>(args)...); });
}

class Scratch {
 public:
  Scratch(std::size_t bytes, Stream) : data_(::operator new(bytes)) {
    std::memset(data_, 0xff, bytes);  // poison: a kernel that reads what nobody wrote computes NaN
  }
  ~Scratch() { ::operator delete(data_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_;
};

inline void fill_zero(void* data, std::size_t bytes, Stream) { std::memset(data, 0, bytes); }
inline void copy_to_device(void* to, const void* from, std::size_t bytes, Stream) {
  std::memcpy(to, from, bytes);
}
inline void copy_to_host(void* to, const void* from, std::size_t bytes, Stream) {
  std::memcpy(to, from, bytes);
}

#else

inline void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) [[unlikely]] {
    cudaGetLastError();  // so that the next launch does not report this error again
    fail<DeviceError>(what, ": ", cudaGetErrorString(status));
  }
}

template <class... Params, class... Args>
void launch(void (*kernel)(Params...), dim3 grid, dim3 block, std::size_t shared_bytes, Stream stream,
            const Args&... args) {
  static_assert((sizeof(Params) + ... + 0) <= kMaxArgumentBytes);
  constexpr std::size_t kSharedWithoutAsking = 48 << 10;
  const auto* function = reinterpret_cast<const void*>(kernel);
  if (shared_bytes > kSharedWithoutAsking)
    check(cudaFuncSetAttribute(function, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          "cudaFuncSetAttribute");
  const auto start = [&](std::remove_cv_t<Params>... values) {
    void* pointers[] = {const_cast<void*>(static_cast<const void*>(&values))..., nullptr};
    check(cudaLaunchKernel(function, grid, block, pointers, shared_bytes, static_cast<cudaStream_t>(stream)),
          "cudaLaunchKernel");
  };
  start(static_cast<Params>(args)...);
}

// Temporary device memory, freed in stream order. Arrays belong to CuPy; this is for what lives
// between two launches of one operation. The driver's pool makes it cheap and a graph may capture it.
class Scratch {
 public:
  Scratch(std::size_t bytes, Stream stream) : stream_(static_cast<cudaStream_t>(stream)) {
    check(cudaMallocAsync(&data_, bytes ? bytes : 1, stream_), "cudaMallocAsync");
  }
  ~Scratch() { cudaFreeAsync(data_, stream_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  cudaStream_t stream_;
};

inline void fill_zero(void* data, std::size_t bytes, Stream stream) {
  check(cudaMemsetAsync(data, 0, bytes, static_cast<cudaStream_t>(stream)), "cudaMemsetAsync");
}

// From ordinary host memory, which may change as soon as this returns. A captured copy reads `from`
// again at each replay.
inline void copy_to_device(void* to, const void* from, std::size_t bytes, Stream stream) {
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, static_cast<cudaStream_t>(stream)),
        "cudaMemcpyAsync");
}

// Waits for the stream: only for what an error message depends on.
inline void copy_to_host(void* to, const void* from, std::size_t bytes, Stream stream) {
  const auto s = static_cast<cudaStream_t>(stream);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, s), "cudaMemcpyAsync");
  check(cudaStreamSynchronize(s), "cudaStreamSynchronize");
}

#endif

// Blocks that cover n elements, at most `most`: kernels walk the rest with a stride of the grid.
inline unsigned blocks_for(std::int64_t n, std::int64_t per_block, std::int64_t most = 0x7fffffff) {
  const std::int64_t blocks = (n + per_block - 1) / per_block;
  return static_cast<unsigned>(blocks < 1 ? 1 : blocks > most ? most : blocks);
}

}  // namespace thalweg::cuda
