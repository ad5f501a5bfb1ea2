#pragma once

namespace thalweg {

struct NormKernels {};

}  // namespace thalweg
