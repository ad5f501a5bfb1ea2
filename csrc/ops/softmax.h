// Softmax, its logarithm, their gradients, and cross-entropy on logits with its gradient.
#pragma once

#include <string_view>

#include "base/view.h"
#include "cpu/softmax.h"

namespace thalweg::ops {

using cpu::LossReduction;
using cpu::SoftmaxForm;

LossReduction parse_loss_reduction(const char* op, std::string_view name);

void softmax(const char* op, SoftmaxForm form, const View& x, const View& y, int axis);
void softmax_backward(const char* op, SoftmaxForm form, const View& dy, const View& y, const View& dx,
                      int axis);

struct CrossEntropyOptions {
  double label_smoothing;
  LossReduction reduction;
};

// logits (N, C), target (N,) int32 or int64; loss () or, with LossReduction::none, (N,); dlogits (N, C).
void softmax_cross_entropy(const View& logits, const View& target, const CrossEntropyOptions& options,
                           const View& loss, const View& dlogits);

}  // namespace thalweg::ops
