#pragma once
namespace thalweg {
struct OptimKernels {};
}  // namespace thalweg
