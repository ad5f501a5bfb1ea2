// Fork-join over one persistent pool of threads.
//
// The pool is for work that is short (microseconds) and frequent: workers spin for a moment before
// they sleep. Results never depend on the number of threads; callers cut the work by its size only.
#pragma once

#include <cstdint>

namespace thalweg {

// Calls f(begin, end) over [0, n) in ranges whose bounds are multiples of `grain` (the last one may
// be short), on up to num_threads() threads. Nested calls, and calls while another thread holds the
// pool, run serially. Workers take over the caller's floating-point environment. The first exception
// that f throws is rethrown here, after all threads have stopped.
template <class F>
void parallel_for(std::int64_t n, std::int64_t grain, const F& f);

int num_threads();
void set_num_threads(int n);  // ValueError outside 1 … 1024
int default_num_threads();    // THALWEG_NUM_THREADS, else CPUs by affinity, cgroup and local MPI ranks
bool in_parallel();

namespace detail {
using RangeFunction = void (*)(const void* context, std::int64_t begin, std::int64_t end);
void run_parallel(std::int64_t n, std::int64_t grain, RangeFunction function, const void* context);
}  // namespace detail

template <class F>
void parallel_for(std::int64_t n, std::int64_t grain, const F& f) {
  if (n <= 0) return;
  if (n <= grain) return f(std::int64_t{0}, n);
  detail::run_parallel(
      n, grain,
      [](const void* context, std::int64_t begin, std::int64_t end) {
        (*static_cast<const F*>(context))(begin, end);
      },
      &f);
}

}  // namespace thalweg
