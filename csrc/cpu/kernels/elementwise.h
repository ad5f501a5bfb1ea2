#pragma once

namespace thalweg {

struct ElementwiseKernels {};

}  // namespace thalweg
