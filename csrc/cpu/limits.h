// Measured limits of this machine with num_threads() threads.
#pragma once

namespace thalweg {

struct Limits {
  double fma_f32_gflops, fma_f64_gflops;
  double read_gbytes, triad_gbytes;  // per second, arrays far larger than the caches
};

Limits measure_limits(double seconds);  // about this long in all

}  // namespace thalweg
