// The arguments of an optimizer step on a device.
//
// Step states, and what is computed from them, stay on the device: nothing is read back, and a graph
// that captured the launches replays with the counts that it finds in memory.
#pragma once

#include <optional>
#include <span>

#include "cpu/kernels/optim.h"

namespace thalweg::cuda {

struct OptimItem {
  int rule = 0;
  DType dtype = DType::f32;
  int group = 0;  // row of OptimStep::hyper
  double lr_scale = 1;
  OptimTensor tensor;          // device pointers; the list of sources itself is on the host
  StepState* state = nullptr;  // on the device
};

struct OptimStep {
  std::span<const OptimItem> items;  // those with a gradient
  std::span<const Hyper> hyper;      // one row per group, on the host
  OptimStageOptions stages;
  std::optional<double> max_norm;
  bool zero_grad = false;
  double* norm = nullptr;  // on the device; the global norm before clipping, written with max_norm
};

}  // namespace thalweg::cuda
