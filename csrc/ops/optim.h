// Fused optimizer steps over lists of tensors: all checks, then one launch.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/view.h"
#include "cpu/optim.h"
#include "cuda/table.h"

namespace thalweg::ops {

struct OptimTensorViews {
  View param;                  // float32, float64, or bfloat16 or float16 with a master
  std::optional<View> master;  // float32
  std::optional<View> copy;    // of a float32 parameter, in 16 bits
  std::vector<View> states;    // of the parameter's dtype, or the master's; uint8 codes with `absmax`
  std::vector<View> absmax;    // none, or for each state the scales of its blocks, float32
  std::optional<View> average;
  StepState* step = nullptr;
  double lr_scale = 1;
};

// What a step does that finds Inf or NaN in a gradient: goes on; leaves parameters and states as they
// are, but zeroes the gradients where that was asked for; leaves everything.
enum class Nonfinite { propagate, skip, stop };

struct OptimStepOptions {
  double grad_scale = 1;
  std::optional<double> max_norm, clip_value, ema_decay;
  bool zero_grad = false;
  Nonfinite nonfinite = Nonfinite::propagate;
  double* norm = nullptr;  // on a GPU: where the norm goes, without waiting for it
};

// Names of a rule's states; ValueError for an unknown rule.
std::vector<std::string> state_names(const std::string& rule);

// In the order of the tensors over all groups, a list of arrays to be summed for each; an empty one
// skips its tensor.
using Gradients = std::vector<std::vector<View>>;

struct StepLaunch;

class FusedOptimizer {
 public:
  // Returns the group's index. Each tensor has the rule's states. ValueError, TypeError before anything
  // is kept.
  int add_group(const std::string& rule, std::vector<OptimTensorViews> tensors);

  // Gradients that step() and grad_norm() take from then on, as often as the arrays stay where they are:
  // a thousand tensors take longer to check than to update. `zero_grad`: they may be zeroed, too.
  std::shared_ptr<const Gradients> checked(Gradients gradients, bool zero_grad) const;
  // `hyper` has one row per group. Returns the global norm where max_norm is given, or Inf and NaN were
  // looked for.
  std::optional<double> step(std::span<const Hyper> hyper, std::shared_ptr<const Gradients> gradients,
                             const OptimStepOptions& options);
  std::optional<double> last_norm() const { return last_norm_; }  // what the last step() returned
  // On a GPU the norm goes to *norm, and the result means nothing.
  double grad_norm(const std::shared_ptr<const Gradients>& gradients, double grad_scale,
                   double* norm = nullptr);
  Device device() const { return device_; }
  // The first tensor in whose gradient the last step() found Inf or NaN, if it looked for them.
  std::optional<std::size_t> nonfinite_tensor() const { return nonfinite_tensor_; }

  std::size_t tensor_count() const { return tensors_.size(); }
  std::size_t group_count() const { return groups_; }

 private:
  void add(int rule, OptimTensorViews views);
  void set_sources(const std::shared_ptr<const Gradients>& gradients);
  void prepare(std::span<const Hyper> hyper, const OptimStageOptions& stages);
  void run(std::span<const Hyper> hyper, const OptimStepOptions& options);  // after set_sources()
  double norm(double grad_scale);
  std::optional<std::size_t> find_nonfinite() const;  // after norm()
  std::vector<cuda::OptimItem> device_items() const;  // those with a gradient
  std::optional<double> step_on(const cuda::Table& table, std::span<const Hyper> hyper,
                                const OptimStageOptions& stages, const OptimStepOptions& options);

  struct Tensor {
    int group;
    OptimTensorViews views;
    std::vector<void*> sources;
  };
  struct Owned {  // an array that a step writes
    Extent extent;
    std::string name;
  };
  Device device_ = Device::cpu;
  std::size_t groups_ = 0;
  std::vector<Tensor> tensors_;
  std::vector<Owned> owned_;  // every array that a step writes, sorted by address
  std::vector<cpu::OptimWork> work_;
  cpu::OptimSlices slices_;
  std::shared_ptr<const Gradients> sources_;  // those that work_ points to
  std::vector<double> squares_;               // of each tensor's gradient, from the last norm()
  std::optional<std::size_t> nonfinite_tensor_;
  std::optional<double> last_norm_;

  friend struct StepLaunch;
};

}  // namespace thalweg::ops
