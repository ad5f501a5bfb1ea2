#pragma once

#include <optional>

#include "cpu/dropout.h"

namespace thalweg::ops {

// ValueError unless 0 <= p < 1 and every sample and element has a 32-bit counter of its own
// (2^32 samples, 2^34 elements each). TypeError unless x is float32 or float64. Where `source` is given,
// seed, step and sample_offset are its three int64 at the time of running.
void dropout(const View& x, const DropoutOptions& options, const std::optional<View>& source, const View& y);

}  // namespace thalweg::ops
