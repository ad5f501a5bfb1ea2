// What a kernel may use of the GPU, and nothing else: every .cu file takes barrier, shuffle, shared
// memory, asynchronous copies and matrix instructions from here. sm_80 and later.
//
// Test builds define THALWEG_CUDA_EMULATED, and the same names get a host meaning (emulate/), so that
// the .cu files compile with the host compiler and run without a GPU.
//
// Collectives (shuffle, ballot, mma, warp_barrier) are of whole warps: all 32 lanes call them.
#pragma once

#include <cstdint>

#include "base/config.h"

namespace thalweg::cuda {
inline constexpr unsigned kWarpLanes = 32;
}

#ifdef THALWEG_CUDA_EMULATED
#include "cuda/emulate/primitives.h"
#else

// A large kernel parameter, which threads share instead of copying: `__grid_constant__ Argument<List> list`.
namespace thalweg::cuda {
template <class T>
using Argument = const T;
}

// A block's shared array: THALWEG_SHARED(float, tile, [16][33]).
#define THALWEG_SHARED(type, name, ...) __shared__ type name __VA_ARGS__

namespace thalweg::cuda {

// The shared memory that the launch asked for, 16-byte aligned.
template <class T>
__device__ __forceinline__ T* dynamic_shared() {
  extern __shared__ __align__(16) unsigned char thalweg_dynamic_shared[];
  return reinterpret_cast<T*>(thalweg_dynamic_shared);
}

__device__ __forceinline__ void barrier() { __syncthreads(); }
__device__ __forceinline__ void warp_barrier() { __syncwarp(); }
__device__ __forceinline__ unsigned lane_index() { return threadIdx.x % kWarpLanes; }

inline constexpr unsigned kAllLanes = 0xffffffffu;

template <class T>
__device__ __forceinline__ T shuffle(T value, unsigned from) {
  return __shfl_sync(kAllLanes, value, static_cast<int>(from));
}
template <class T>
__device__ __forceinline__ T shuffle_xor(T value, unsigned mask) {
  return __shfl_xor_sync(kAllLanes, value, static_cast<int>(mask));
}
// Lanes beyond the last keep their own value.
template <class T>
__device__ __forceinline__ T shuffle_down(T value, unsigned delta) {
  return __shfl_down_sync(kAllLanes, value, delta);
}
__device__ __forceinline__ std::uint32_t ballot(bool predicate) {
  return __ballot_sync(kAllLanes, predicate);
}

// Returns the value before. T: float, double, int, unsigned.
template <class T>
__device__ __forceinline__ T atomic_add(T* address, T value) {
  return atomicAdd(address, value);
}
__device__ __forceinline__ void memory_fence() { __threadfence(); }

// Copies 4, 8 or 16 bytes from global to shared memory without registers; bytes beyond `valid_bytes`
// become 0. Both addresses are aligned to kBytes. Visible to this thread after wait_copies, to the
// block after a barrier beyond that.
template <int kBytes>
__device__ __forceinline__ void copy_async(void* to, const void* from, int valid_bytes = kBytes) {
  static_assert(kBytes == 4 || kBytes == 8 || kBytes == 16);
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(to));
  if constexpr (kBytes == 16)  // past L1, which only this width may skip
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(address), "l"(from), "r"(valid_bytes));
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(address), "l"(from), "n"(kBytes),
                 "r"(valid_bytes));
}
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::); }
// Waits until at most kInFlight of this thread's committed groups have not landed.
template <int kInFlight>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kInFlight) : "memory");
}

// a b + c, rounded once; contraction is off elsewhere.
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) { return __fma_rn(a, b, c); }

__device__ __forceinline__ std::uint32_t to_tf32(float x) {
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
__device__ __forceinline__ std::uint16_t to_bf16(float x) {
  std::uint16_t bits;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
  return bits;
}

// D += A B with float accumulators; fragments as in the PTX manual.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {  // m16n8k16
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
__device__ __forceinline__ void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4],
                                         const std::uint32_t (&b)[2]) {  // m16n8k8
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace thalweg::cuda

#endif
