// The thread pool (base/parallel.h) under ThreadSanitizer: `make sanitize`. Pure C++, since the
// interpreter is not built for it. Exits 0 if every index of every job was visited exactly once.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/parallel.h"

namespace {

using thalweg::parallel_for;
using thalweg::set_num_threads;

void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "pool_stress: %s\n", what);
  std::_Exit(1);
}

// Plain integers: two threads on one index, or a result read before it is written, is a data race.
void count_once(std::int64_t n, std::int64_t grain) {
  std::vector<int> visits(static_cast<std::size_t>(n), 0);
  parallel_for(n, grain, [&](std::int64_t begin, std::int64_t end) {
    require(begin % grain == 0, "a range does not begin at a multiple of the grain");
    for (std::int64_t i = begin; i < end; ++i) ++visits[static_cast<std::size_t>(i)];
  });
  for (const int visit : visits) require(visit == 1, "an index was not visited once");
}

void short_jobs() {
  for (int i = 0; i < 3000; ++i) count_once(1 + i % 97, 1 + i % 5);
}

// Long enough for workers to fall asleep between jobs.
void parked_workers() {
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    count_once(1000, 7);
  }
}

void nested_jobs() {
  for (int i = 0; i < 100; ++i)
    parallel_for(16, 1, [](std::int64_t begin, std::int64_t end) {
      for (std::int64_t j = begin; j < end; ++j) count_once(50, 3);
    });
}

void exceptions() {
  for (int i = 0; i < 200; ++i) {
    bool thrown = false;
    try {
      parallel_for(64, 1, [&](std::int64_t, std::int64_t end) {
        if (end > i % 64) throw std::runtime_error(std::to_string(end));
      });
    } catch (const std::runtime_error&) {
      thrown = true;
    }
    require(thrown, "an exception was lost");
    count_once(64, 1);
  }
}

// While others work: a job that finds the pool busy runs by itself.
void resizes_among_callers() {
  std::atomic<bool> stop{false};
  std::vector<std::thread> callers;
  for (int i = 0; i < 3; ++i)
    callers.emplace_back([&] {
      while (!stop.load()) count_once(200, 3);
    });
  for (int i = 0; i < 100; ++i) set_num_threads(1 + i % 6);
  stop.store(true);
  for (std::thread& caller : callers) caller.join();
  set_num_threads(4);
}

void forks() {
  for (int i = 0; i < 10; ++i) {
    count_once(1000, 10);
    const pid_t child = fork();
    if (child == 0) {
      count_once(1000, 10);
      std::_Exit(0);
    }
    int status = 1;
    require(waitpid(child, &status, 0) == child && status == 0, "a forked child failed");
  }
}

}  // namespace

int main() {
  set_num_threads(4);
  short_jobs();
  parked_workers();
  nested_jobs();
  exceptions();
  resizes_among_callers();
  forks();
  std::puts("pool_stress: every index once");
}
