#include "cpu/limits.h"

#include <algorithm>
#include <chrono>
#include <memory>

#include "base/parallel.h"
#include "base/tree.h"
#include "cpu/isa.h"

namespace thalweg {
namespace {

double now() {
  using namespace std::chrono;
  return duration<double>(steady_clock::now().time_since_epoch()).count();
}

// The best of as many repetitions as fit: noise only ever slows a machine down.
template <class Work>
double best_rate(double seconds, double amount, const Work& work) {
  work();
  double best = 0;
  const double end = now() + seconds;
  do {
    const double start = now();
    work();
    best = std::max(best, amount / (now() - start));
  } while (now() < end);
  return best;
}

double fma_gflops(double seconds, double (*kernel)(std::int64_t)) {
  constexpr std::int64_t kRounds = 100000;
  const int threads = num_threads();
  const double flops = kernel(1) * static_cast<double>(kRounds) * threads;
  return 1e-9 * best_rate(seconds, flops, [&] {
           parallel_for(threads, 1, [&](std::int64_t begin, std::int64_t end) {
             for (std::int64_t i = begin; i < end; ++i) kernel(kRounds);
           });
         });
}

}  // namespace

Limits measure_limits(double seconds) {
  constexpr std::int64_t kElements = std::int64_t{1} << 25;  // 128 MiB an array
  constexpr std::int64_t kGrain = 1 << 16;
  const std::unique_ptr<float[]> a(new float[kElements]), b(new float[kElements]), c(new float[kElements]);
  parallel_for(kElements, kGrain, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) a[i] = b[i] = c[i] = 1.0F;
  });
  const double bytes = static_cast<double>(kElements) * sizeof(float);
  Limits limits{};
  limits.fma_f32_gflops = fma_gflops(seconds / 4, kernels().limits.fma_f32);
  limits.fma_f64_gflops = fma_gflops(seconds / 4, kernels().limits.fma_f64);
  limits.read_gbytes = 1e-9 * best_rate(seconds / 4, bytes, [&] {
                         parallel_for(kElements, kGrain, [&](std::int64_t begin, std::int64_t end) {
                           double total = 0;
                           for (std::int64_t i = begin; i < end; i += kTreeBlock)
                             total += kernels().reduce.sum_squares_f32(&a[i], std::min(kTreeBlock, end - i));
                           asm volatile("" ::"x"(total));
                         });
                       });
  // In place, so that all traffic is counted: a line that is only written would be read as well.
  limits.triad_gbytes = 1e-9 * best_rate(seconds / 4, 3 * bytes, [&] {
                          parallel_for(kElements, kGrain, [&](std::int64_t begin, std::int64_t end) {
                            for (std::int64_t i = begin; i < end; ++i) c[i] += 0.5F * b[i];
                            asm volatile("" ::: "memory");
                          });
                        });
  return limits;
}

}  // namespace thalweg
