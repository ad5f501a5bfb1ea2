#include "cpu/kernels/dropout.h"

#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

void words(PhiloxKey key, std::uint32_t module, std::uint32_t step, const std::uint32_t* block,
           const std::uint32_t* sample, std::int64_t n, std::uint32_t* words) {
#pragma GCC ivdep
  for (std::int64_t j = 0; j < n; ++j) {
    const PhiloxWords w = philox({block[j], sample[j], module, step}, key);
    words[4 * j] = w.x0;
    words[4 * j + 1] = w.x1;
    words[4 * j + 2] = w.x2;
    words[4 * j + 3] = w.x3;
  }
}

template <class T>
void apply(const T* x, const std::uint32_t* words, T* y, std::int64_t n, std::uint32_t threshold, T scale) {
  const DropoutRule<T> rule{threshold, scale};
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) y[i] = rule(x[i], words[i]);
}

}  // namespace

void fill(DropoutKernels& kernels) {
  kernels.words = words;
  kernels.apply_f32 = apply<float>;
  kernels.apply_f64 = apply<double>;
}

}  // namespace thalweg::THALWEG_ISA
