// Local response normalisation of (N, C, H, W), planes or channels-last by strides. Outputs are laid out
// like x.
#pragma once

#include "base/view.h"

namespace thalweg::cpu {

struct LrnOptions {
  std::int64_t size;
  double alpha, beta, k;
};

void local_response_norm(const LrnOptions& o, const View& x, const View& y);
void local_response_norm_backward(const LrnOptions& o, const View& dy, const View& x, const View& dx);

}  // namespace thalweg::cpu
