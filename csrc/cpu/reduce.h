// Reductions of strided arrays over any axes.
#pragma once

#include "base/view.h"
#include "cpu/kernels/reduce.h"

namespace thalweg::cpu {

struct ReduceArguments {
  Reduction reduction;
  bool mean;      // divide by the number of reduced elements
  unsigned axes;  // bit i: axis i of x is reduced
  View x, out;    // out: the kept extents, C-contiguous, same dtype
};

void reduce(const ReduceArguments& arguments);

}  // namespace thalweg::cpu
