// Max and mean over windows of (N, C, H, W). Outputs have the layout of x: planes, or channels-last.
#pragma once

#include <cstdint>

#include "base/view.h"
#include "cpu/pool.h"

namespace thalweg::ops {

struct PoolOptions {
  std::int64_t kernel[2], stride[2], padding[2], dilation[2];
  bool ceil_mode = false;
  bool count_padding = true;
};

// Checks x and the options, and finds the shape of y.
cpu::PoolGeometry pool_geometry(const char* op, const View& x, const PoolOptions& options);
// uint8 where a window's elements can be told apart with it, else int32.
DType pool_index_type(const cpu::PoolGeometry& g);

void max_pool(const cpu::PoolGeometry& g, const View& x, bool relu, const View& y, const View& index);
void max_pool_backward(const cpu::PoolGeometry& g, const View& dy, const View& index, const View& dx);
// y = the elements of x that `index` names.
void max_pool_pick(const cpu::PoolGeometry& g, const View& x, const View& index, const View& y);
void avg_pool(const cpu::PoolGeometry& g, const View& x, const View& y);
void avg_pool_backward(const cpu::PoolGeometry& g, const View& dy, const View& dx);

}  // namespace thalweg::ops
