// Dropout over samples.
//
// Axis 0 of x counts samples; an element's index is its C-order position within its sample. Elements
// 4 b … 4 b + 3 of sample s take the four words of the counter (b, s, module, step) under the key
// `seed`, so a mask depends on neither threads, ISA nor how the batch was cut over ranks.
#pragma once

#include <cstdint>

#include "base/view.h"

namespace thalweg {

struct DropoutOptions {
  double p = 0.5;  // probability of dropping, in [0, 1)
  std::uint64_t seed = 0;
  std::uint32_t step = 0, module = 0, sample_offset = 0;  // sample_offset: of x's first sample
};

namespace cpu {
void dropout(const View& x, const View& y, const DropoutOptions& options);  // y is C-contiguous
}
}  // namespace thalweg
