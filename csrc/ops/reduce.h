// Reductions: sum, mean, max, min, sum of squares over any axes.
#pragma once

#include "base/view.h"
#include "cpu/kernels/reduce.h"

namespace thalweg::ops {

// `axes` has bit i set where axis i of x is reduced; out holds the kept extents, C-contiguous.
void reduce(const char* op, Reduction reduction, bool mean, const View& x, unsigned axes, const View& out);

}  // namespace thalweg::ops
