// Test only: the host meaning of primitives.cuh, on the fibers of block.h.
#pragma once

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "cuda/emulate/block.h"

// CUDA's own words, so that a kernel's text reads the same everywhere.
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__

// A separate heap block per array, so that AddressSanitizer sees an index outside it.
#define THALWEG_SHARED(type, name, ...)                               \
  static const char name##_key = 0;                                   \
  auto& name = *static_cast<std::type_identity_t<type __VA_ARGS__>*>( \
      ::thalweg::cuda::emulate::current_block().shared(&name##_key,   \
                                                       sizeof(std::type_identity_t<type __VA_ARGS__>)))

namespace thalweg::cuda {

using dim3 = Dim3;

template <class T>
using Argument = const T&;

template <class T>
T* dynamic_shared() {
  return static_cast<T*>(emulate::current_block().dynamic_shared());
}

inline void barrier(emulate::Site site = emulate::Site::current()) { emulate::current_block().barrier(site); }

namespace emulate {
template <class T>
T value_of(const std::byte* values, unsigned lane) {
  T value;
  std::memcpy(&value, values + lane * kLaneBytes, sizeof(T));
  return value;
}
}  // namespace emulate

inline void warp_barrier(emulate::Site site = emulate::Site::current()) {
  emulate::current_block().gather("", 0, site);
}

inline unsigned lane_index() { return emulate::current_block().lane(); }

template <class T>
T shuffle(T value, unsigned from, emulate::Site site = emulate::Site::current()) {
  return emulate::value_of<T>(emulate::current_block().gather(&value, sizeof(T), site), from % kWarpLanes);
}

template <class T>
T shuffle_xor(T value, unsigned mask, emulate::Site site = emulate::Site::current()) {
  return shuffle(value, lane_index() ^ mask, site);
}

template <class T>
T shuffle_down(T value, unsigned delta, emulate::Site site = emulate::Site::current()) {
  const unsigned from = lane_index() + delta;
  return shuffle(value, from < kWarpLanes ? from : lane_index(), site);
}

inline std::uint32_t ballot(bool predicate, emulate::Site site = emulate::Site::current()) {
  const std::byte* values = emulate::current_block().gather(&predicate, sizeof predicate, site);
  std::uint32_t bits = 0;
  for (unsigned lane = 0; lane < kWarpLanes; ++lane)
    bits |= static_cast<std::uint32_t>(emulate::value_of<bool>(values, lane)) << lane;
  return bits;
}

template <class T>
T atomic_add(T* address, T value) {
  const T before = *address;
  *address = before + value;
  return before;
}

inline void memory_fence() {}

// A copy lands when it is waited for and not before: the latest moment that hardware could choose.
template <int kBytes>
void copy_async(void* to, const void* from, int valid_bytes = kBytes) {
  emulate::current_block().copy_async({to, from, kBytes, static_cast<std::size_t>(valid_bytes)});
}
inline void commit_copies() { emulate::current_block().commit_copies(); }
template <int kInFlight>
void wait_copies() {
  emulate::current_block().wait_copies(kInFlight);
}

inline float multiply_add(float a, float b, float c) { return std::fma(a, b, c); }
inline double multiply_add(double a, double b, double c) { return std::fma(a, b, c); }

inline std::uint32_t to_tf32(float x) {  // to nearest, ties away from zero: cvt.rna
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::isfinite(x) ? (bits + 0x1000u) & ~0x1fffu : bits;
}

inline std::uint16_t to_bf16(float x) {  // to nearest even: cvt.rn
  const auto bits = std::bit_cast<std::uint32_t>(x);
  if (std::isnan(x)) return 0x7fff;
  return static_cast<std::uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

namespace emulate {

struct MmaOperands {
  std::uint32_t a[4], b[2];
};

// D += A B for the four elements of D that this lane holds; a(values, m, k) and b(values, k, n) find
// an element in the lanes' operands.
template <int kDepth, class A, class B>
void multiply_add(float (&d)[4], const std::byte* values, const A& a, const B& b) {
  const unsigned row = lane_index() / 4, column = lane_index() % 4 * 2;
  for (unsigned i = 0; i < 4; ++i)
    for (unsigned k = 0; k < kDepth; ++k)
      d[i] += a(values, row + i / 2 * 8, k) * b(values, k, column + i % 2);
}

}  // namespace emulate

// The fragments' layouts are the PTX manual's, "Matrix fragments for mma.m16n8k16 / m16n8k8".
inline void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                     emulate::Site site = emulate::Site::current()) {
  using emulate::MmaOperands, emulate::value_of;
  const MmaOperands own{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const std::byte* all = emulate::current_block().gather(&own, sizeof own, site);
  const auto half = [](std::uint32_t pair, unsigned which) {
    return std::bit_cast<float>(which ? pair & 0xffff0000u : pair << 16);
  };
  emulate::multiply_add<16>(
      d, all,
      [&](const std::byte* v, unsigned m, unsigned k) {
        return half(value_of<MmaOperands>(v, m % 8 * 4 + k % 8 / 2).a[m / 8 + k / 8 * 2], k % 2);
      },
      [&](const std::byte* v, unsigned k, unsigned n) {
        return half(value_of<MmaOperands>(v, n * 4 + k % 8 / 2).b[k / 8], k % 2);
      });
}

inline void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2],
                     emulate::Site site = emulate::Site::current()) {
  using emulate::MmaOperands, emulate::value_of;
  const MmaOperands own{{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
  const std::byte* all = emulate::current_block().gather(&own, sizeof own, site);
  const auto truncated = [](std::uint32_t bits) { return std::bit_cast<float>(bits & ~0x1fffu); };
  emulate::multiply_add<8>(
      d, all,
      [&](const std::byte* v, unsigned m, unsigned k) {
        return truncated(value_of<MmaOperands>(v, m % 8 * 4 + k % 4).a[m / 8 + k / 4 * 2]);
      },
      [&](const std::byte* v, unsigned k, unsigned n) {
        return truncated(value_of<MmaOperands>(v, n * 4 + k % 4).b[k / 4]);
      });
}

}  // namespace thalweg::cuda
