// Sums of a batch per channel: of chunks, which a thread block keeps in registers, and of all chunks.
//
// Statistics are means and squared deviations, merged by Chan's formula; gradients sum Σdy and
// Σdy (x - mean) over the same chunks.
#pragma once

#include <cstdint>

#include "cuda/channels.cuh"
#include "cuda/launch.cuh"
#include "rules/norm.h"

namespace thalweg::cuda {

constexpr int kMergeColumns = 32, kMergeLanes = kChannelThreads / kMergeColumns;

// Two partial results per chunk and channel: [chunk * channels + channel].
struct Partial {
  double *first, *second;
};

// --- sums of chunks ---------------------------------------------------------------------------

// Mean and sum of squared deviations of each chunk.
template <class T, int kColumns>
__global__ void __launch_bounds__(kChannelThreads)
    chunk_moments(ChannelShape shape, const T* x, Partial out) {
  THALWEG_SHARED(double, shared, [kChannelThreads]);
  const ChannelPart<kColumns> part(shape);
  T held[kHeld] = {};
  double sum = 0, squares = 0;
  part.for_elements(shape, [&](int k, std::int64_t at) {
    held[k] = x[at];
    sum += static_cast<double>(held[k]);
  });
  const double mean = sum_lanes<kColumns>(shared, sum) / static_cast<double>(part.end - part.begin);
  part.for_elements(shape, [&](int k, std::int64_t) {
    const double deviation = static_cast<double>(held[k]) - mean;
    squares += deviation * deviation;
  });
  const double m2 = sum_lanes<kColumns>(shared, squares);
  if (part.lane != 0 || part.begin >= part.end) return;
  out.first[part.chunk * shape.channels + part.channel] = mean;
  out.second[part.chunk * shape.channels + part.channel] = m2;
}

// Σdy and Σdy (x - mean) of each chunk.
template <class T, int kColumns>
__global__ void __launch_bounds__(kChannelThreads)
    chunk_sums(ChannelShape shape, const T* dy, const T* x, ChannelVector mean, Partial out) {
  THALWEG_SHARED(double, shared, [kChannelThreads]);
  const ChannelPart<kColumns> part(shape);
  const double center = part.begin < part.end ? mean.at(part.channel) : 0;
  double sum_dy = 0, sum_dy_x = 0;
  part.for_elements(shape, [&](int, std::int64_t at) {
    const double g = static_cast<double>(dy[at]);
    sum_dy += g;
    sum_dy_x += g * (static_cast<double>(x[at]) - center);
  });
  sum_dy = sum_lanes<kColumns>(shared, sum_dy);
  sum_dy_x = sum_lanes<kColumns>(shared, sum_dy_x);
  if (part.lane != 0 || part.begin >= part.end) return;
  out.first[part.chunk * shape.channels + part.channel] = sum_dy;
  out.second[part.chunk * shape.channels + part.channel] = sum_dy_x;
}

// --- merging of chunks ------------------------------------------------------------------------

struct Sample {
  double n, first, second;
};

struct MergeStatistics {
  static __device__ void merge(Sample& a, const Sample& b) {
    if (b.n == 0) return;
    MergeMoments::prepare(a.n, b.n)(a.first, a.second, b.first, b.second);
    a.n += b.n;
  }
};
struct MergeSums {
  static __device__ void merge(Sample& a, const Sample& b) { a.first += b.first, a.second += b.second; }
};

// A thread block merges 32 channels: lane l the chunks l, l + 8, …, then the lanes pairwise. The result is
// valid in lane 0.
template <class Rule>
__device__ Sample merge_chunks(const ChannelShape& shape, std::int64_t chunk, const Partial& partial,
                               std::int64_t channel, int lane, Sample (&shared)[kMergeLanes][kMergeColumns]) {
  Sample mine = {};
  const std::int64_t chunks = channel < shape.channels ? (shape.count() + chunk - 1) / chunk : 0;
  for (std::int64_t k = lane; k < chunks; k += kMergeLanes) {
    const std::int64_t left = shape.count() - k * chunk, at = k * shape.channels + channel;
    Rule::merge(mine,
                {static_cast<double>(left < chunk ? left : chunk), partial.first[at], partial.second[at]});
  }
  const int column = static_cast<int>(threadIdx.x) % kMergeColumns;
  shared[lane][column] = mine;
  barrier();
  for (int step = 1; step < kMergeLanes; step *= 2) {
    if (lane % (2 * step) == 0) Rule::merge(shared[lane][column], shared[lane + step][column]);
    barrier();
  }
  return shared[0][column];
}

template <class T>
struct Moments {
  double *mean, *m2, *rstd;  // each may be null
  double eps;
  T *running_mean, *running_var;
  std::int64_t mean_stride, var_stride;
  double momentum;
};

template <class T>
__global__ void __launch_bounds__(kChannelThreads)
    finish_moments(ChannelShape shape, std::int64_t chunk, Partial partial, Moments<T> out) {
  THALWEG_SHARED(Sample, shared, [kMergeLanes][kMergeColumns]);
  const int lane = static_cast<int>(threadIdx.x) / kMergeColumns;
  const std::int64_t c = std::int64_t{blockIdx.x} * kMergeColumns + threadIdx.x % kMergeColumns;
  const Sample all = merge_chunks<MergeStatistics>(shape, chunk, partial, c, lane, shared);
  if (lane != 0 || c >= shape.channels) return;
  const double n = static_cast<double>(shape.count());
  if (out.mean) out.mean[c] = all.first;
  if (out.m2) out.m2[c] = all.second;
  if (out.rstd) out.rstd[c] = 1 / sqrt(all.second / (n > 1 ? n : 1) + out.eps);
  if (!out.running_mean || n == 0) return;
  const auto move = [&](T& slot, double value) {
    slot = static_cast<T>((1 - out.momentum) * static_cast<double>(slot) + out.momentum * value);
  };
  move(out.running_mean[c * out.mean_stride], all.first);
  move(out.running_var[c * out.var_stride], 1 / (n - 1) * all.second);
}

template <class T>
struct Sums {
  double *sum_dy, *sum_dy_xhat;
  T *dbeta, *dgamma;  // may be null
};

template <class T>
__global__ void __launch_bounds__(kChannelThreads)
    finish_sums(ChannelShape shape, std::int64_t chunk, Partial partial, ChannelVector rstd, Sums<T> out) {
  THALWEG_SHARED(Sample, shared, [kMergeLanes][kMergeColumns]);
  const int lane = static_cast<int>(threadIdx.x) / kMergeColumns;
  const std::int64_t c = std::int64_t{blockIdx.x} * kMergeColumns + threadIdx.x % kMergeColumns;
  const Sample all = merge_chunks<MergeSums>(shape, chunk, partial, c, lane, shared);
  if (lane != 0 || c >= shape.channels) return;
  const double sum_dy_xhat = all.second * rstd.at(c);
  out.sum_dy[c] = all.first;
  out.sum_dy_xhat[c] = sum_dy_xhat;
  if (out.dbeta) out.dbeta[c] = static_cast<T>(all.first);
  if (out.dgamma) out.dgamma[c] = static_cast<T>(sum_dy_xhat);
}

}  // namespace thalweg::cuda
