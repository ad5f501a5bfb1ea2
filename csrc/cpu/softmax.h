// Softmax along one axis, and its fusion with cross-entropy.
#pragma once

#include "base/view.h"

namespace thalweg::cpu {

enum class SoftmaxForm : std::uint8_t { plain, logarithm };

// x and y of one shape, y C-contiguous.
void softmax(SoftmaxForm form, const View& x, const View& y, int axis);
void softmax_backward(SoftmaxForm form, const View& dy, const View& y, const View& dx, int axis);

enum class LossReduction : std::uint8_t { mean, sum, none };

// logits (N, C), target (N,) within the classes, loss () or (N,), dlogits (N, C) C-contiguous.
void softmax_cross_entropy(const View& logits, const View& target, double label_smoothing,
                           LossReduction reduction, const View& loss, const View& dlogits);

}  // namespace thalweg::cpu
