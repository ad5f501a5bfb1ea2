// Batch normalisation of one tile: `runs` of consecutive elements, the same number of elements apart.
//
// "plane" loops: every element belongs to one channel (NCHW); sums go along the run, in the lanes of
// base/tree.h. "row" loops: element c of a run belongs to channel c (NC, channels-last); sums go
// across the runs, vectorised over channels. Sums are doubles for every element type. The one activation
// that loops take along is ReLU; others are passes of their own over what is still in cache.
#pragma once

#include <cstdint>

#include "base/config.h"
#include "cpu/kernels/layer_norm.h"

namespace thalweg {

struct Runs {
  std::int64_t count, stride, length;
};

// Per-channel constants of rules/norm.h as arrays; plane loops use element 0.
template <class T>
struct NormalizeConstants {
  const T *center, *scale, *shift;
};
template <class T>
struct NormalizeBackwardConstants {
  const T *center, *scale, *slope, *offset;
};

// What flows back into the normalisation: dy, or dy through a ReLU whose output was y.
template <class T>
struct Inflow {
  const T *dy, *y;  // y may be null
};

template <class T>
struct NormLoops {
  using Moments = void (*)(const T* x, Runs runs, double* mean, double* m2);
  // residual may be null
  using Apply = void (*)(const T* x, const T* residual, T* y, Runs runs, NormalizeConstants<T> constants,
                         bool relu);
  // Σ g and Σ g (x - mean) of the inflow g
  using Sums = void (*)(Inflow<T> inflow, const T* x, Runs runs, const double* mean, double* sum_dy,
                        double* sum_dy_x);
  // dx may be dy; dresidual, the inflow itself, may be null
  using Backward = void (*)(Inflow<T> inflow, const T* x, T* dx, T* dresidual, Runs runs,
                            NormalizeBackwardConstants<T> constants);

  Moments moments = nullptr;
  Apply apply = nullptr;
  Sums sums = nullptr;
  Backward backward = nullptr;
};

struct NormKernels {
  NormLoops<float> plane_f32, row_f32;
  NormLoops<double> plane_f64, row_f64;

  // Statistics of n_b elements per channel join those of n_a elements.
  void (*merge_moments)(double* mean_a, double* m2_a, double n_a, const double* mean_b, const double* m2_b,
                        double n_b, std::int64_t channels) = nullptr;

  // Copies past the caches, for results too large to stay there: a store that goes through them first
  // reads what it overwrites.
  void (*stream)(const void* from, void* to, std::int64_t bytes) = nullptr;

  LayerNormKernels layer;

  template <class T>
  const NormLoops<T>& loops(bool planes) const {
    if constexpr (sizeof(T) == 4)
      return planes ? plane_f32 : row_f32;
    else
      return planes ? plane_f64 : row_f64;
  }
};

inline namespace THALWEG_ISA {
void fill(LayerNormKernels&);
}

}  // namespace thalweg
