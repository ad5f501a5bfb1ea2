#pragma once

namespace thalweg {

struct GemmKernels {};

}  // namespace thalweg
