// The optimizer's driver on the CPU: slices over all tensors, one fork-join.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/dtype.h"
#include "cpu/kernels/optim.h"

namespace thalweg::cpu {

// Room for any prepared rule or stage of either dtype.
struct alignas(16) OptimScalars {
  std::byte bytes[96];
};

struct OptimWork {
  int rule = 0;
  DType dtype = DType::f32;
  OptimTensor tensor;
  OptimScalars rule_scalars, stages;  // set by prepare()
};

// How the tensors are cut, once for all steps: by their sizes only.
class OptimSlices {
 public:
  void add(std::int64_t tensor, std::int64_t elements);

  struct Slice {
    std::int64_t tensor, begin, end;
  };
  std::vector<Slice> slices;          // begins are multiples of kTreeBlock
  std::vector<std::int64_t> runs{0};  // run r is slices [runs[r], runs[r+1]): enough for one thread

 private:
  std::int64_t run_elements_ = 0;
};

// Rule and stage scalars of one tensor from its hyperparameters and step state (advanced by one).
void prepare(OptimWork& work, const Hyper& hyper, StepState& state, const OptimStageOptions& options);

// The norm phase of the rules that have one, after prepare() and before optim_step().
void optim_adapt(std::vector<OptimWork>& work, const OptimSlices& slices);

void optim_step(const std::vector<OptimWork>& work, const OptimSlices& slices, bool zero_grad);

// totals[i]: Σ g² of tensor i, g the sum of its sources; through the reduction tree, in double.
void optim_sum_squares(const std::vector<OptimWork>& work, const OptimSlices& slices,
                       std::vector<double>& totals);

// Whether every element of the (summed) gradient is neither Inf nor NaN.
bool optim_is_finite(const OptimWork& item);

void optim_zero_gradients(const std::vector<OptimWork>& work, const OptimSlices& slices);

// Names of the rules and of their states, by rule index.
const char* rule_name(int rule);
int rule_state_count(int rule);
const char* rule_state_name(int rule, int state);
bool rule_has_8bit_states(int rule);

}  // namespace thalweg::cpu
