// How the channels of a contiguous batch are shared out to threads, and sums per channel.
//
// Element e of channel c lies at ((e / inner) * channels + c) * inner + e % inner. A thread block takes a
// chunk of the elements of kColumns channels: one where a channel's elements are neighbours (planes), 32
// where channels are.
#pragma once

#include <cstdint>

#include "base/view.h"
#include "cuda/primitives.cuh"

namespace thalweg::cuda {

constexpr int kChannelThreads = 256;
constexpr int kHeld = 16;  // elements that a thread keeps in registers between two passes

struct ChannelShape {
  std::int64_t outer = 1, channels = 1, inner = 1;

  static ChannelShape of(const View& x, int axis) {
    ChannelShape shape;
    shape.channels = x.shape[axis];
    for (int i = 0; i < x.rank; ++i)
      if (i != axis) (i < axis ? shape.outer : shape.inner) *= x.shape[i];
    return shape;
  }

  THALWEG_HOST_DEVICE std::int64_t count() const { return outer * inner; }
  THALWEG_HOST_DEVICE std::int64_t elements() const { return outer * channels * inner; }
  bool planes() const { return inner > 1 || channels == 1; }

  __device__ std::int64_t at(std::int64_t e, std::int64_t channel) const {
    const std::int64_t n = quotient(e, inner);
    return (n * channels + channel) * inner + (e - n * inner);
  }
  __device__ std::int64_t channel_of(std::int64_t i) const {
    const std::int64_t row = quotient(i, inner);
    return row - quotient(row, channels) * channels;
  }
  // 32-bit division is several times faster on a GPU.
  static __device__ std::int64_t quotient(std::int64_t a, std::int64_t b) {
    if (b == 1) return a;
    return (a | b) >> 32 == 0 ? static_cast<std::uint32_t>(a) / static_cast<std::uint32_t>(b) : a / b;
  }
};

// The part of a batch that a thread works on.
template <int kColumns>
struct ChannelPart {
  static constexpr int kLanes = kChannelThreads / kColumns;
  static constexpr std::int64_t kChunk = std::int64_t{kLanes} * kHeld;

  int lane;
  std::int64_t channel, chunk, begin, end;  // elements [begin, end) of the channel; none beyond the channels

  static THALWEG_HOST_DEVICE std::int64_t chunks(const ChannelShape& shape) {
    return (shape.count() + kChunk - 1) / kChunk;
  }
  static THALWEG_HOST_DEVICE std::int64_t groups(const ChannelShape& shape) {
    return (shape.channels + kColumns - 1) / kColumns;
  }

  __device__ explicit ChannelPart(const ChannelShape& shape) {
    const std::int64_t group = blockIdx.x % groups(shape);
    chunk = blockIdx.x / groups(shape);
    lane = static_cast<int>(threadIdx.x) / kColumns;
    channel = group * kColumns + static_cast<int>(threadIdx.x) % kColumns;
    begin = chunk * kChunk;
    end = begin + kChunk < shape.count() ? begin + kChunk : shape.count();
    if (channel >= shape.channels) end = begin;
  }

  // f(k, offset) for this thread's elements, k < kHeld.
  template <class F>
  __device__ void for_elements(const ChannelShape& shape, const F& f) const {
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      const std::int64_t e = begin + lane + k * kLanes;
      if (e < end) f(k, shape.at(e, channel));
    }
  }
};

// Sum over the lanes of each column, for all of its threads. `shared` has kChannelThreads values.
template <int kColumns>
__device__ double sum_lanes(double* shared, double value) {
  const int thread = static_cast<int>(threadIdx.x);
  shared[thread] = value;
  barrier();
  for (int half = kChannelThreads / kColumns / 2; half > 0; half /= 2) {
    if (thread < half * kColumns) shared[thread] += shared[thread + half * kColumns];
    barrier();
  }
  const double sum = shared[thread % kColumns];
  barrier();
  return sum;
}

// One value per channel from an array of doubles or floats, or a constant where there is none.
struct ChannelVector {
  const void* data = nullptr;
  std::int64_t stride = 0;
  bool wide = false;
  double otherwise = 0;

  __device__ double at(std::int64_t channel) const {
    if (!data) return otherwise;
    return wide ? static_cast<const double*>(data)[channel * stride]
                : static_cast<double>(static_cast<const float*>(data)[channel * stride]);
  }
};

}  // namespace thalweg::cuda
