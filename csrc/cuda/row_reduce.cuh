// Sums along a row through the tree of base/tree.h, by the threads that work on it.
//
// A team is kGroups groups of kTreeLanes threads. Each group takes a run of tree blocks, a power of two
// of them, which is a subtree; the groups' results are the rest of the tree. One group serves rows of
// one tree block, a whole thread block longer ones.
#pragma once

#include <cstdint>

#include "base/tree.h"
#include "cuda/primitives.cuh"

namespace thalweg::cuda {

constexpr unsigned kGroupsOfBlock = 16, kRowThreads = kGroupsOfBlock * kTreeLanes;

template <unsigned kGroups>
struct Team {
  static constexpr unsigned kTeams = kGroupsOfBlock / kGroups;  // rows of a thread block

  unsigned lane, group;
  std::int64_t row;
  double* shared;  // kGroupsOfBlock values

  __device__ explicit Team(double* shared_values)
      : lane(threadIdx.x % kTreeLanes),
        group(threadIdx.x / kTreeLanes % kGroups),
        row(std::int64_t{blockIdx.x} * kTeams + threadIdx.x / (kTreeLanes * kGroups)),
        shared(shared_values) {}

  // f(i) for this thread's elements of a row of n: always the same ones.
  template <class F>
  __device__ void for_elements(std::int64_t n, const F& f) const {
    const std::int64_t run = run_length(n);
    for (std::int64_t b = group * run; b < (group + 1) * run; ++b) {
      const std::int64_t end = (b + 1) * kTreeBlock < n ? (b + 1) * kTreeBlock : n;
      for (std::int64_t i = b * kTreeBlock + lane; i < end; i += kTreeLanes) f(i);
    }
  }

  // Rule-merges map(i) over i < n. All threads of the thread block call it, those without a row with
  // n = 0; every thread of the team gets the result.
  template <class Rule, class Map>
  __device__ double reduce(std::int64_t n, std::int64_t longest, const Map& map) const {
    const double result = reduce_run<Rule>(n, run_length(longest), map);
    if constexpr (kGroups == 1) return result;
    if (lane == 0) shared[group] = result;
    barrier();
    double values[kGroups];
    for (unsigned g = 0; g < kGroups; ++g) values[g] = shared[g];
    const std::int64_t runs = (tree_blocks(n) + run_length(n) - 1) / run_length(n);
    merge_pairwise(values, runs, [](double a, double b) { return Rule::merge(a, b); });
    barrier();  // before the next reduction writes
    return values[0];
  }

 private:
  // Tree blocks of a group: the smallest power of two with which all groups reach the row's end.
  static __device__ std::int64_t run_length(std::int64_t n) {
    std::int64_t run = 1;
    while (run * kGroups < tree_blocks(n)) run *= 2;
    return run;
  }

  // Both halves of a warp go through the shuffles equally often, whatever their rows hold.
  template <class Rule, class Map>
  __device__ double reduce_run(std::int64_t n, std::int64_t run, const Map& map) const {
    constexpr int kMostDepth = 44;  // log2 of the tree blocks in 2^56 elements
    double pending[kGroups == 1 ? 1 : kMostDepth];
    int depth = 0;
    for (std::int64_t j = 0; j < run; ++j) {
      const std::int64_t begin = (group * run + j) * kTreeBlock;
      const std::int64_t end = begin + kTreeBlock < n ? begin + kTreeBlock : n;
      double sum = Rule::kIdentity;
      for (std::int64_t i = begin + lane; i < end; i += kTreeLanes) sum = Rule::merge(sum, map(i));
      for (unsigned step = 1; step < kTreeLanes; step *= 2) sum = Rule::merge(sum, shuffle_down(sum, step));
      sum = shuffle(sum, lane_index() / kTreeLanes * kTreeLanes);
      if constexpr (kGroups == 1) return sum;
      if (begin >= end) continue;
      // Equal runs merge as soon as they are complete, the rest below.
      for (std::int64_t complete = j + 1; complete % 2 == 0; complete /= 2)
        sum = Rule::merge(pending[--depth], sum);
      pending[depth++] = sum;
    }
    if (depth == 0) return Rule::kIdentity;
    double result = pending[--depth];
    while (depth > 0) result = Rule::merge(pending[--depth], result);
    return result;
  }
};

}  // namespace thalweg::cuda
