// Dropout's two loops: random words for many counters, and their use.
#pragma once

#include <cstdint>

#include "rules/philox.h"

namespace thalweg {

struct DropoutKernels {
  // words[4 j …] = Philox of the counter (block[j], sample[j], module, step)
  void (*words)(PhiloxKey key, std::uint32_t module, std::uint32_t step, const std::uint32_t* block,
                const std::uint32_t* sample, std::int64_t n, std::uint32_t* words) = nullptr;
  // y[i] = words[i] >= threshold ? x[i] * scale : 0; y may be x
  void (*apply_f32)(const float* x, const std::uint32_t* words, float* y, std::int64_t n,
                    std::uint32_t threshold, float scale) = nullptr;
  void (*apply_f64)(const double* x, const std::uint32_t* words, double* y, std::int64_t n,
                    std::uint32_t threshold, double scale) = nullptr;
};

}  // namespace thalweg
