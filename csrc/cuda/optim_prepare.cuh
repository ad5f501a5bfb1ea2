// What an optimizer step prepares for each tensor: its step state advanced, the rule's and the stages'
// scalars.
#pragma once

#include <cstdint>

#include "cuda/optim_tensors.cuh"

namespace thalweg::cuda {

// Room for the prepared scalars of any rule, and of the stages, in either dtype.
struct alignas(16) Scalars {
  static constexpr int kBytes = 96;
  unsigned char rule[kBytes], stages[kBytes];
};

constexpr int kMaxPrepared = 1000;
struct PrepareList {
  int count = 0;
  std::int32_t begin = 0;  // index of the first one in the step's list
  struct Item {
    StepState* state;
    double lr_scale;
    std::int32_t group;
    std::int16_t rule;
    DType dtype;
  } items[kMaxPrepared];
};

struct PrepareOptions {
  OptimStageOptions stages;
  double max_norm;
  const double* norm;  // null: no limit
};

template <class T>
__device__ void prepare_scalars(int rule, const Hyper& hyper, StepState& state,
                                const OptimStageOptions& options, Scalars& scalars) {
  static_assert(sizeof(OptimStages<T>) <= Scalars::kBytes);
  int index = 0;
  OptimRules<T>::for_each([&]<class Rule>() {
    static_assert(sizeof(Rule) <= Scalars::kBytes);
    if (index++ == rule) reinterpret_cast<Rule*>(scalars.rule)->prepare(hyper, state);
  });
  *reinterpret_cast<OptimStages<T>*>(scalars.stages) = OptimStages<T>::prepare(hyper, options);
}

// One thread per tensor.
__global__ void __launch_bounds__(kOptimThreads)
    prepare(__grid_constant__ Argument<PrepareList> list, const Hyper* hyper, PrepareOptions options,
            Scalars* scalars) {
  const auto i = static_cast<int>(blockIdx.x * kOptimThreads + threadIdx.x);
  if (i >= list.count) return;
  const PrepareList::Item item = list.items[i];
  Hyper h = hyper[item.group];
  h.lr *= item.lr_scale;
  if (options.norm) options.stages.grad_scale *= clip_factor(*options.norm, options.max_norm);
  advance(h, *item.state);
  if (item.dtype == DType::f64)
    prepare_scalars<double>(item.rule, h, *item.state, options.stages, scalars[list.begin + i]);
  else
    prepare_scalars<float>(item.rule, h, *item.state, options.stages, scalars[list.begin + i]);
}

}  // namespace thalweg::cuda
