// Class labels: checked, picked by, and scattered to. Targets are data, so they are looked at when a
// launch runs.
#pragma once

#include <string>

#include "base/view.h"

namespace thalweg::ops {

// ValueError, in the name of `op`, for a label outside [0, classes).
void check_labels(const std::string& op, const View& target, std::int64_t classes);

// ValueError, in the name of `op`, for an element outside [0, 1]; NaN is outside.
void check_probabilities(const std::string& op, const View& target);

// y[i] = x[i, target[i]], and back: dx[i, target[i]] = dy[i], 0 elsewhere. Contiguous outputs.
void pick(const View& x, const View& target, const View& y);
void unpick(const View& dy, const View& target, const View& dx);

}  // namespace thalweg::ops
