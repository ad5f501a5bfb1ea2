#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kAccumulators = 24;
#elif defined(__AVX2__)
constexpr int kVectorBytes = 32, kAccumulators = 12;
#else
constexpr int kVectorBytes = 16, kAccumulators = 12;
#endif

template <class T>
struct Vector {
  typedef T type __attribute__((vector_size(kVectorBytes)));
};

// As many chains as the GEMM tile has accumulators: enough to hide the latency of an FMA, few enough
// to stay in registers. The empty asm pins each chain to a register, round after round.
template <class T>
double multiply_adds(std::int64_t rounds) {
  using V = typename Vector<T>::type;
  V sums[kAccumulators];
#pragma GCC unroll 24
  for (int i = 0; i < kAccumulators; ++i) sums[i] = V{} + static_cast<T>(i);
  const V factor = V{} + static_cast<T>(0.5);
  for (std::int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < kAccumulators; ++i) {
#if defined(__FMA__)
      if constexpr (sizeof(T) == 4)
        asm volatile("vfmadd213ps %1, %1, %0" : "+v"(sums[i]) : "v"(factor));
      else
        asm volatile("vfmadd213pd %1, %1, %0" : "+v"(sums[i]) : "v"(factor));
#else
      sums[i] = sums[i] * factor + factor;
      asm volatile("" : "+x"(sums[i]));
#endif
    }
  }
  return 2.0 * static_cast<double>(kVectorBytes / sizeof(T)) * kAccumulators * static_cast<double>(rounds);
}

}  // namespace

void fill(LimitKernels& kernels) {
  kernels.fma_f32 = multiply_adds<float>;
  kernels.fma_f64 = multiply_adds<double>;
}

}  // namespace thalweg::THALWEG_ISA
