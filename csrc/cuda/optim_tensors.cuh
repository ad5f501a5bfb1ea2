// The tensors of an optimizer step as an argument of kernels, which find theirs by the number of the
// thread block, and a tensor's elements in registers.
#pragma once

#include <cstdint>

#include "base/tree.h"
#include "cuda/families.h"
#include "cuda/launch.cuh"

namespace thalweg::cuda {

constexpr unsigned kOptimThreads = 256;

struct TensorEntry {
  std::int64_t elements;
  std::int64_t tree_block;  // its first one in the list of all tensors' tree blocks
  unsigned first_block;     // of the thread blocks that serve it
  std::int32_t index;       // in the step's list
  std::uint16_t pointers;   // where they start in the pool: parameter, states, average, sources
  std::uint8_t sources;
  bool average;
};

constexpr int kMaxTensors = 400, kMaxPointers = 2200;
struct TensorList {
  int count = 0, pointers = 0;
  unsigned blocks = 0;
  TensorEntry tensors[kMaxTensors];
  void* pool[kMaxPointers];

  __device__ const TensorEntry& find(unsigned block) const {
    int low = 0, high = count - 1;
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (tensors[middle].first_block <= block)
        low = middle;
      else
        high = middle - 1;
    }
    return tensors[low];
  }
};

constexpr int kMaxSources = 255;

inline int pointer_count(const OptimTensor& tensor, int states) {
  return 1 + states + (tensor.average ? 1 : 0) + tensor.source_count;
}

// Tensors of a launch; the caller launches and starts anew when one does not fit.
class TensorLister {
 public:
  bool fits(const OptimTensor& tensor, int states) const {
    return list_.count < kMaxTensors && list_.pointers + pointer_count(tensor, states) <= kMaxPointers;
  }
  void add(const OptimTensor& tensor, int states, std::size_t index, std::int64_t elements_per_block) {
    if (tensor.source_count > kMaxSources)
      fail<ValueError>("optimizer: a tensor has ", tensor.source_count,
                       " gradient sources, expected at most ", kMaxSources, " on a GPU");
    list_.tensors[list_.count++] = {tensor.elements,
                                    tree_block_,
                                    list_.blocks,
                                    static_cast<std::int32_t>(index),
                                    static_cast<std::uint16_t>(list_.pointers),
                                    static_cast<std::uint8_t>(tensor.source_count),
                                    tensor.average != nullptr};
    list_.pool[list_.pointers++] = tensor.param;
    for (int k = 0; k < states; ++k) list_.pool[list_.pointers++] = tensor.states[k];
    if (tensor.average) list_.pool[list_.pointers++] = tensor.average;
    for (int k = 0; k < tensor.source_count; ++k) list_.pool[list_.pointers++] = tensor.sources[k];
    list_.blocks += blocks_for(tensor.elements, elements_per_block);
    tree_block_ += tree_blocks(tensor.elements);
  }
  void clear() { list_.count = list_.pointers = 0, list_.blocks = 0; }
  const TensorList& list() const { return list_; }
  bool empty() const { return list_.count == 0; }

 private:
  TensorList list_;
  std::int64_t tree_block_ = 0;
};

template <class T>
__device__ T sum_of_sources(void* const* sources, int count, std::int64_t i) {
  T sum = static_cast<const T*>(sources[0])[i];
  for (int k = 1; k < count; ++k) sum += static_cast<const T*>(sources[k])[i];
  return sum;
}

// A tensor's arrays, as one step sees them.
template <class Rule, class T>
struct Arrays {
  static constexpr int kStates = Rule::states.size;
  T* param;
  T* states[kMaxStates] = {};
  T* average = nullptr;
  void* const* sources;
  int source_count;

  __device__ Arrays(const TensorList& list, const TensorEntry& tensor) {
    void* const* next = list.pool + tensor.pointers;
    param = static_cast<T*>(*next++);
#pragma unroll
    for (int k = 0; k < kStates; ++k) states[k] = static_cast<T*>(*next++);
    if (tensor.average) average = static_cast<T*>(*next++);
    sources = next;
    source_count = tensor.sources;
  }
};

template <class Rule, class T>
struct Element {
  T param, gradient, states[kMaxStates];

  __device__ void load(const Arrays<Rule, T>& arrays, std::int64_t i) {
    param = arrays.param[i];
    gradient = sum_of_sources<T>(arrays.sources, arrays.source_count, i);
#pragma unroll
    for (int k = 0; k < Rule::states.size; ++k) states[k] = arrays.states[k][i];
  }
  __device__ void update(const Rule& rule, const OptimStages<T>& stages) {
    const T g = stages.gradient(gradient, param);
    param *= stages.keep;
    rule(param, g, states);
  }
  __device__ void store(const Arrays<Rule, T>& arrays, const OptimStages<T>& stages, std::int64_t i,
                        bool zero_grad) const {
    arrays.param[i] = param;
#pragma unroll
    for (int k = 0; k < Rule::states.size; ++k) arrays.states[k][i] = states[k];
    if (arrays.average) arrays.average[i] = stages.ema_keep * arrays.average[i] + stages.ema_take * param;
    if (zero_grad)
      for (int k = 0; k < arrays.source_count; ++k) static_cast<T*>(arrays.sources[k])[i] = T{};
  }
};

}  // namespace thalweg::cuda
