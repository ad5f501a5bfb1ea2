// Elements of another type.
#pragma once

#include "base/view.h"

namespace thalweg::ops {

// y = x, rounded to nearest; to bool: whether it is not 0. y: f32, f64 or bool, C-contiguous.
void cast(const View& x, const View& y);

}  // namespace thalweg::ops
