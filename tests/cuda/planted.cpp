// Kernels with and without planted bugs, run on the emulator: planted CASE ORDER.
// Exit status 0: the answer is right; 1: it is wrong; 2: the emulator refused the kernel.
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>
#include <vector>

#include "cuda/launch.cuh"

namespace thalweg::cuda {

namespace {

constexpr unsigned kThreads = 256;

enum class Bug { none, missing_barrier, divergent_barrier, wrong_index, wrong_shared_index, missing_tail };

// One block sums n floats into *total.
template <Bug bug>
__global__ void sum(const float* x, int n, float* total) {
  THALWEG_SHARED(float, partial, [kThreads]);
  float mine = 0;
  const int end = bug == Bug::missing_tail ? n / int(kThreads) * int(kThreads) : n;
  for (int i = int(threadIdx.x); i < end; i += int(kThreads)) mine += x[bug == Bug::wrong_index ? i + 1 : i];
  partial[bug == Bug::wrong_shared_index ? threadIdx.x + 1 : threadIdx.x] = mine;
  if (bug == Bug::divergent_barrier && threadIdx.x == 7) return;
  if (bug != Bug::missing_barrier) barrier();
  for (unsigned half = kThreads / 2; half > 0; half /= 2) {
    if (threadIdx.x < half) partial[threadIdx.x] += partial[threadIdx.x + half];
    barrier();
  }
  if (threadIdx.x == 0) *total = partial[0];
}

template <Bug bug>
bool sums_right() {
  const int n = 1003;
  std::vector<float> x(static_cast<std::size_t>(n));
  std::iota(x.begin(), x.end(), 1.0f);
  float total = NAN;
  launch(sum<bug>, 1, kThreads, 0, nullptr, x.data(), n, &total);
  std::printf("%g\n", static_cast<double>(total));
  return total == float(n) * float(n + 1) / 2;
}

// Each block reverses its slice of x through shared memory that is filled by asynchronous copies.
template <bool kWaits>
__global__ void reverse_slices(const float* x, float* y) {
  float* tile = dynamic_shared<float>();
  const unsigned base = blockIdx.x * kThreads;
  copy_async<4>(&tile[threadIdx.x], &x[base + threadIdx.x]);
  commit_copies();
  if (kWaits) wait_copies<0>();
  barrier();
  y[base + threadIdx.x] = tile[kThreads - 1 - threadIdx.x];
}

template <bool kWaits>
bool reverses_right() {
  const unsigned blocks = 3;
  std::vector<float> x(blocks * kThreads), y(x.size());
  std::iota(x.begin(), x.end(), 0.0f);
  launch(reverse_slices<kWaits>, blocks, kThreads, kThreads * sizeof(float), nullptr, x.data(), y.data());
  for (unsigned i = 0; i < y.size(); ++i)
    if (y[i] != x[i / kThreads * kThreads + kThreads - 1 - i % kThreads]) return false;
  return true;
}

__global__ void use_collectives(double* sums, std::uint32_t* votes, int* first) {
  double value = threadIdx.x;
  for (unsigned step = kWarpLanes / 2; step > 0; step /= 2) value += shuffle_down(value, step);
  sums[threadIdx.x / kWarpLanes] = shuffle(value, 0);
  votes[threadIdx.x] = ballot(threadIdx.x % 3 == 0);
  first[threadIdx.x] = shuffle_xor(static_cast<int>(threadIdx.x), 1);
}

bool collectives_right() {
  double sums[2];
  std::uint32_t votes[64];
  int neighbours[64];
  launch(use_collectives, 1, 64, 0, nullptr, &sums[0], &votes[0], &neighbours[0]);
  bool right = sums[0] == 31 * 16 && sums[1] == 31 * 16 + 32 * 32;
  for (unsigned t = 0; t < 64; ++t) {
    right &= neighbours[t] == int(t ^ 1);
    for (unsigned lane = 0; lane < 32; ++lane)
      right &= (votes[t] >> lane & 1) == ((t / 32 * 32 + lane) % 3 == 0);
  }
  return right;
}

__global__ void diverge_in_warp(int* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = shuffle(1, 0);
}

// C (16, 8) = A (16, K) B (K, 8) of small integers, which bf16 and tf32 hold exactly.
template <bool kTf32, int kDepth>
__global__ void multiply(const float* a, const float* b, float* c) {
  const unsigned group = lane_index() / 4, pair = lane_index() % 4;
  float d[4] = {};
  if constexpr (kTf32) {
    const std::uint32_t af[4] = {to_tf32(a[group * kDepth + pair]), to_tf32(a[(group + 8) * kDepth + pair]),
                                 to_tf32(a[group * kDepth + pair + 4]),
                                 to_tf32(a[(group + 8) * kDepth + pair + 4])};
    const std::uint32_t bf[2] = {to_tf32(b[pair * 8 + group]), to_tf32(b[(pair + 4) * 8 + group])};
    mma_tf32(d, af, bf);
  } else {
    const auto pack = [](float low, float high) {
      return static_cast<std::uint32_t>(to_bf16(low)) | static_cast<std::uint32_t>(to_bf16(high)) << 16;
    };
    const auto a_pair = [&](unsigned m, unsigned k) {
      return pack(a[m * kDepth + k], a[m * kDepth + k + 1]);
    };
    const auto b_pair = [&](unsigned k) { return pack(b[k * 8 + group], b[(k + 1) * 8 + group]); };
    const std::uint32_t af[4] = {a_pair(group, pair * 2), a_pair(group + 8, pair * 2),
                                 a_pair(group, pair * 2 + 8), a_pair(group + 8, pair * 2 + 8)};
    const std::uint32_t bf[2] = {b_pair(pair * 2), b_pair(pair * 2 + 8)};
    mma_bf16(d, af, bf);
  }
  for (unsigned i = 0; i < 4; ++i) c[(group + i / 2 * 8) * 8 + pair * 2 + i % 2] = d[i];
}

template <bool kTf32, int kDepth>
bool multiplies_right() {
  float a[16 * kDepth], b[kDepth * 8], c[16 * 8];
  for (int i = 0; i < 16 * kDepth; ++i) a[i] = static_cast<float>(i * 7 % 13 - 6);
  for (int i = 0; i < kDepth * 8; ++i) b[i] = static_cast<float>(i * 5 % 11 - 5);
  launch(multiply<kTf32, kDepth>, 1, 32, 0, nullptr, &a[0], &b[0], &c[0]);
  for (int m = 0; m < 16; ++m)
    for (int n = 0; n < 8; ++n) {
      float expected = 0;
      for (int k = 0; k < kDepth; ++k) expected += a[m * kDepth + k] * b[k * 8 + n];
      if (c[m * 8 + n] != expected) return false;
    }
  return true;
}

bool runs_right(const char* name) {
  const auto is = [&](const char* other) { return !std::strcmp(name, other); };
  if (is("sum")) return sums_right<Bug::none>();
  if (is("missing_barrier")) return sums_right<Bug::missing_barrier>();
  if (is("divergent_barrier")) return sums_right<Bug::divergent_barrier>();
  if (is("wrong_index")) return sums_right<Bug::wrong_index>();
  if (is("wrong_shared_index")) return sums_right<Bug::wrong_shared_index>();
  if (is("missing_tail")) return sums_right<Bug::missing_tail>();
  if (is("async_copy")) return reverses_right<true>();
  if (is("missing_wait")) return reverses_right<false>();
  if (is("collectives")) return collectives_right();
  if (is("divergent_warp"))
    return launch(diverge_in_warp, 1, 32, 0, nullptr, std::vector<int>(32).data()), true;
  if (is("mma_bf16")) return multiplies_right<false, 16>();
  if (is("mma_tf32")) return multiplies_right<true, 8>();
  fail<ValueError>("planted: unknown case ", name);
}

}  // namespace
}  // namespace thalweg::cuda

int main(int argc, char** argv) {
  using namespace thalweg::cuda;
  if (argc != 3) return 64;
  emulate::set_order(std::strcmp(argv[2], "reverse") ? emulate::Order::forward : emulate::Order::reverse);
  try {
    return runs_right(argv[1]) ? 0 : 1;
  } catch (const std::exception& error) {
    std::puts(error.what());
    return 2;
  }
}
