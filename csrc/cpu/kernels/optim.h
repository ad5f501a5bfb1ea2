// Optimizer loops: one instantiation per rule and dtype, however many stages are on.
#pragma once

#include <cstdint>

#include "base/half.h"
#include "rules/optim.h"

namespace thalweg {

// Rules as a run-time index: position in OptimRules.
inline constexpr int kOptimRules = static_cast<int>(OptimRules<float>::size);

// One tensor of a step: base pointers of C-contiguous arrays of one dtype. A parameter of 16 bits is
// `low`; then `param` is its float32 master copy, which the rule sees.
struct OptimTensor {
  std::int64_t elements = 0;
  void* param = nullptr;
  void* states[kMaxStates] = {};
  void* average = nullptr;          // null: no weight average
  void* const* sources = nullptr;   // gradients, summed in this order
  int source_count = 0;             // 0: the tensor is skipped
  Half source_format = Half::none;  // none: of param's dtype
  Half low_format = Half::none;
  std::uint16_t* low = nullptr;
  bool low_is_copy = false;  // `low` is a rounded copy of a float32 parameter and only written
  // Not null: the states are codes of 8 bits, one scale for kQuantBlock of them (rules/quantize.h).
  float* absmax[kMaxStates] = {};
};

// Elements [begin, end) of a tensor. `rule` points to the prepared Rule<T>, `stages` to
// OptimStages<T>; both are plain scalars, laid out alike on every ISA.
using OptimStepFunction = void (*)(const OptimTensor&, const void* rule, const void* stages,
                                   std::int64_t begin, std::int64_t end, bool zero_grad);
// The norm phase of at most one tree block: squares[0] = Σ p², squares[1] = Σ measure(…)².
using OptimMeasureFunction = void (*)(const OptimTensor&, const void* rule, const void* stages,
                                      std::int64_t begin, std::int64_t end, double* squares);
using OptimSumFunction = void (*)(const OptimTensor&, std::int64_t begin, std::int64_t end, void* sum);

struct OptimKernels {
  OptimStepFunction step_f32[kOptimRules] = {}, step_f64[kOptimRules] = {};
  OptimMeasureFunction measure_f32[kOptimRules] = {}, measure_f64[kOptimRules] = {};  // null: no norm phase
  OptimSumFunction sum_sources_f32 = nullptr, sum_sources_f64 = nullptr;  // sum[i-begin] = Σ sources[i]
};

}  // namespace thalweg
