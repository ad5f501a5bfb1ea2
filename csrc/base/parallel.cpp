#include "base/parallel.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"

namespace thalweg {
namespace {

constexpr int kMaxThreads = 1024;
// Longer than the gap between two kernels of a step. A time and not a count: `pause` takes 10 ns on
// some processors and 50 on others.
constexpr std::chrono::microseconds kSpin{50};

thread_local bool inside_parallel = false;

// Whole CPUs that the cgroup grants this process: v2's "max 100000" or "150000 100000".
int cgroup_cpus() {
  std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r");
  if (!file) return kMaxThreads;
  char quota[32] = {};
  double period = 0;
  const int fields = std::fscanf(file, "%31s %lf", quota, &period);
  std::fclose(file);
  if (fields != 2 || std::string(quota) == "max" || period <= 0) return kMaxThreads;
  return std::max(1, static_cast<int>(std::ceil(std::atof(quota) / period)));
}

int affinity_cpus() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

int positive_env(const char* name) {
  const char* text = std::getenv(name);
  if (!text) return 0;
  char* end = nullptr;
  const long value = std::strtol(text, &end, 10);
  return end == text || *end || value < 1 || value > kMaxThreads ? 0 : static_cast<int>(value);
}

// Ranks on this node share its CPUs when mpirun has not bound them to cores of their own.
int local_ranks() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"})
    if (const int ranks = positive_env(name)) return ranks;
  return 1;
}

// Waits for done() without the scheduler, for kSpin at most; false if it does not hold by then.
template <class Done>
bool spin_until(const Done& done) {
  constexpr int kPauses = 32;  // between two looks at the clock
  std::chrono::steady_clock::time_point end{};
  for (int i = 1; !done(); ++i) {
    _mm_pause();
    if (i % kPauses != 0) continue;
    const auto now = std::chrono::steady_clock::now();
    if (i == kPauses) end = now + kSpin;
    if (now > end) return false;
  }
  return true;
}

class Pool {
 public:
  void run(std::int64_t n, std::int64_t grain, detail::RangeFunction function, const void* context) {
    std::unique_lock<std::mutex> lock(mutex_, std::defer_lock);
    if (threads() == 1 || inside_parallel || !lock.try_lock()) return function(context, 0, n);
    start_workers();
    job_ = {function, context, n, grain, _mm_getcsr()};
    // A few ranges per thread even out noise from outside; more would cost locality.
    const std::int64_t ranges = (n + grain - 1) / grain;
    job_.chunk = grain * std::max<std::int64_t>(1, ranges / (4 * threads()));
    const std::int64_t chunks = (n + job_.chunk - 1) / job_.chunk, parts = threads();
    for (std::int64_t t = 0; t < parts; ++t) {
      parts_[t].next.store(t * chunks / parts, std::memory_order_relaxed);
      parts_[t].end = (t + 1) * chunks / parts;
    }
    error_ = nullptr;
    failed_.store(false, std::memory_order_relaxed);
    helpers_.store(kOpen, std::memory_order_release);
    keep_workers_off(sched_getcpu());
    generation_.fetch_add(1);
    if (parked_.load() > 0) generation_.notify_all();
    work(0);
    // Every range is taken now. A worker that has no core yet finds the job closed and is not waited
    // for: on a busy machine it would cost a time slice of the scheduler, milliseconds.
    helpers_.fetch_and(~kOpen, std::memory_order_relaxed);
    const auto all_left = [this] { return helpers_.load(std::memory_order_acquire) == 0; };
    if (!spin_until(all_left))
      while (!all_left()) std::this_thread::yield();
    if (error_) std::rethrow_exception(error_);
  }

  int threads() const { return threads_.load(std::memory_order_relaxed); }

  void set_threads(int n) {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_workers();
    threads_.store(n, std::memory_order_relaxed);
  }

  std::mutex& mutex() { return mutex_; }

 private:
  struct Job {
    detail::RangeFunction function = nullptr;
    const void* context = nullptr;
    std::int64_t n = 0, grain = 0;
    unsigned floating_point_environment = 0;
    std::int64_t chunk = 1;
  };

  void start_workers() {
    const auto wanted = static_cast<std::size_t>(threads() - 1);
    if (workers_.size() == wanted) return;
    parts_.reset(new Part[wanted + 1]);
    without_workers_ = -1;
    while (workers_.size() < wanted)
      workers_.emplace_back([this, seen = generation_.load(), own = static_cast<int>(workers_.size()) + 1] {
        worker(seen, own);
      });
  }

  void stop_workers() {
    stopping_.store(true, std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
    generation_.notify_all();
    for (std::thread& thread : workers_) thread.join();
    workers_.clear();
    stopping_.store(false, std::memory_order_relaxed);
  }

  void worker(std::uint32_t seen, int own) {
    inside_parallel = true;
    for (;;) {
      const auto new_job = [&] { return generation_.load(std::memory_order_acquire) != seen; };
      while (!spin_until(new_job)) {
        parked_.fetch_add(1);
        generation_.wait(seen, std::memory_order_acquire);
        parked_.fetch_sub(1);
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stopping_.load(std::memory_order_relaxed)) return;
      if (!join()) continue;
      _mm_setcsr(job_.floating_point_environment);
      work(own);
      helpers_.fetch_sub(1, std::memory_order_release);
    }
  }

  // A worker on its caller's CPU waits behind it: the scheduler looks for another one only milliseconds
  // later. So workers may run wherever the caller may, but there; and when the caller has moved to a
  // worker's CPU, they change places.
  void keep_workers_off(int cpu) {
    if (cpu == without_workers_) return;
    cpu_set_t others;
    if (cpu < 0 || sched_getaffinity(0, sizeof others, &others) != 0 || CPU_COUNT(&others) < 2) return;
    CPU_CLR(cpu, &others);
    for (std::thread& worker : workers_)
      pthread_setaffinity_np(worker.native_handle(), sizeof others, &others);
    without_workers_ = cpu;
  }

  // Only who has joined may look at the job: it stays as it is until all helpers have left.
  bool join() {
    std::uint32_t helpers = helpers_.load(std::memory_order_relaxed);
    while (helpers & kOpen)
      if (helpers_.compare_exchange_weak(helpers, helpers + 1, std::memory_order_acquire)) return true;
    return false;
  }

  // A thread's own part first: in the last call on this memory it did the same one, and has it in its
  // cache. Then what the others have not begun.
  void work(int own) {
    const bool was_inside = inside_parallel;
    inside_parallel = true;
    const int parts = threads();
    for (int i = 0; i < parts; ++i) work_off(parts_[(own + i) % parts]);
    inside_parallel = was_inside;
  }

  struct alignas(64) Part {  // in chunks
    std::atomic<std::int64_t> next{0};
    std::int64_t end = 0;
  };

  void work_off(Part& part) {
    while (part.next.load(std::memory_order_relaxed) < part.end) {
      const std::int64_t chunk = part.next.fetch_add(1, std::memory_order_relaxed);
      if (chunk >= part.end || failed_.load(std::memory_order_relaxed)) return;
      const std::int64_t begin = chunk * job_.chunk;
      try {
        job_.function(job_.context, begin, std::min(begin + job_.chunk, job_.n));
      } catch (...) {
        if (!failed_.exchange(true)) error_ = std::current_exception();
      }
    }
  }

  std::mutex mutex_;  // held by the one thread whose work the pool is doing
  std::vector<std::thread> workers_;
  std::atomic<int> threads_{default_num_threads()};
  Job job_;
  std::exception_ptr error_;
  std::atomic<bool> stopping_{false}, failed_{false};
  std::atomic<int> parked_{0};  // workers that spin no more
  int without_workers_ = -1;    // a CPU
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  std::unique_ptr<Part[]> parts_;  // one a thread
  static constexpr std::uint32_t kOpen = 1U << 31;
  alignas(64) std::atomic<std::uint32_t> helpers_{
      0};  // workers inside the job, and kOpen while it takes more
};

// Never destroyed: workers may outlive static destructors. In a forked child the workers are gone
// and the pool is built anew in place.
alignas(Pool) std::byte storage[sizeof(Pool)];

Pool& pool() {
  static Pool* instance = [] {
    auto* created = new (storage) Pool;
    pthread_atfork([] { pool().mutex().lock(); }, [] { pool().mutex().unlock(); },
                   [] {
                     const int threads = pool().threads();
                     (new (storage) Pool)->set_threads(threads);
                   });
    return created;
  }();
  return *instance;
}

}  // namespace

int default_num_threads() {
  if (const int asked = positive_env("THALWEG_NUM_THREADS")) return asked;
  const int cpus = std::min(affinity_cpus(), cgroup_cpus());
  const int online = static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
  return std::max(1, cpus < online ? cpus : cpus / local_ranks());
}

int num_threads() { return pool().threads(); }

void set_num_threads(int n) {
  if (n < 1 || n > kMaxThreads)
    fail<ValueError>("set_num_threads: n must be between 1 and ", kMaxThreads, ", got ", n);
  pool().set_threads(n);
}

bool in_parallel() { return inside_parallel; }

namespace detail {
void run_parallel(std::int64_t n, std::int64_t grain, RangeFunction function, const void* context) {
  pool().run(n, grain, function, context);
}
}  // namespace detail

}  // namespace thalweg
