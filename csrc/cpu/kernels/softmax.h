#pragma once

namespace thalweg {

struct SoftmaxKernels {};

}  // namespace thalweg
