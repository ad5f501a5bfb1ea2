// The machine's own limits, measured with the kernels' flags: what every benchmark is held against.
#pragma once

#include <cstdint>

namespace thalweg {

struct LimitKernels {
  // Independent multiply-adds on registers; returns the floating-point operations done.
  double (*fma_f32)(std::int64_t rounds) = nullptr;
  double (*fma_f64)(std::int64_t rounds) = nullptr;
};

}  // namespace thalweg
