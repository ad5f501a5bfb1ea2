// Optimizer steps: every rule of rules/optim.h over many tensors in one launch.
//
// 1. With a norm limit, the squares of all gradients are summed through the reduction tree.
// 2. One thread per tensor advances its step state and prepares the rule's and the stages' scalars.
// 3. For rules with a norm phase: the norms of every tensor, through the same tree, adapt its scalars.
// 4. One launch per rule, dtype and few hundred tensors: pointers travel as a kernel argument, a thread
//    block takes a chunk of one tensor.
#include <algorithm>
#include <vector>

#include "base/tree.h"
#include "cuda/families.h"
#include "cuda/launch.cuh"
#include "rules/reduce.h"

namespace thalweg::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kPerThread = 4;
constexpr std::int64_t kChunk = 64 * kThreads;  // elements of a tensor that a thread block updates

// --- tensors as a kernel argument -------------------------------------------------------------

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

int pointer_count(const OptimTensor& tensor, int states) {
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

// --- the global norm --------------------------------------------------------------------------

constexpr int kTreeGroups = kThreads / kTreeLanes;  // tree blocks that a thread block sums

// partial[tensor.tree_block + b]: sum of squares of tree block b, as cpu/optim.cpp computes it.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sum_squares(__grid_constant__ Argument<TensorList> list, double* partial) {
  const TensorEntry& tensor = list.find(blockIdx.x);
  void* const* sources = list.pool + tensor.pointers + (tensor.average ? 2 : 1);  // no states in this list
  const unsigned lane = threadIdx.x % kTreeLanes;
  const std::int64_t block =
      std::int64_t{blockIdx.x - tensor.first_block} * kTreeGroups + threadIdx.x / kTreeLanes;
  const std::int64_t begin = block * kTreeBlock;
  const std::int64_t end = begin + kTreeBlock < tensor.elements ? begin + kTreeBlock : tensor.elements;
  double sum = 0;
  for (std::int64_t i = begin + lane; i < end; i += kTreeLanes) {
    const auto g = static_cast<double>(sum_of_sources<T>(sources, tensor.sources, i));
    sum = SumSquares::merge(sum, SumSquares::map(g));
  }
  for (unsigned step = 1; step < kTreeLanes; step *= 2) sum = SumSquares::merge(sum, shuffle_down(sum, step));
  if (lane == 0 && begin < end) partial[tensor.tree_block + block] = sum;
}

// Merges the tree blocks of one tensor per thread block: merge_pairwise() spread over threads.
__global__ void __launch_bounds__(kThreads)
    merge_squares(__grid_constant__ Argument<TensorList> list, double* partial, double* totals) {
  const TensorEntry& tensor = list.tensors[blockIdx.x];
  double* values = partial + tensor.tree_block;
  const std::int64_t blocks = tree_blocks(tensor.elements);
  for (std::int64_t stride = 1; stride < blocks; stride *= 2) {
    for (std::int64_t i = threadIdx.x * 2 * stride; i + stride < blocks; i += kThreads * 2 * stride)
      values[i] = SumSquares::merge(values[i], values[i + stride]);
    barrier();
  }
  if (threadIdx.x == 0) totals[tensor.index] = values[0];
}

// In the order of the tensors, like the CPU.
__global__ void total_norm(const double* totals, std::int64_t tensors, double grad_scale, double* norm) {
  if (threadIdx.x != 0) return;
  double total = 0;
  for (std::int64_t t = 0; t < tensors; ++t) total += totals[t];
  *norm = sqrt(total) * abs(grad_scale);
}

// --- preparation ------------------------------------------------------------------------------

// Room for the prepared scalars of any rule, and of the stages, in either dtype.
struct alignas(16) Scalars {
  static constexpr int kBytes = 96;
  unsigned char rule[kBytes], stages[kBytes];
};

constexpr int kMaxPrepared = 1000;
struct PrepareList {
  int count = 0;
  std::int32_t begin = 0;  // index of the first one in the step's list
  struct Item {
    StepState* state;
    double lr_scale;
    std::int32_t group;
    std::int16_t rule;
    DType dtype;
  } items[kMaxPrepared];
};

struct PrepareOptions {
  OptimStageOptions stages;
  double max_norm;
  const double* norm;  // null: no limit
};

template <class T>
__device__ void prepare_scalars(int rule, const Hyper& hyper, StepState& state,
                                const OptimStageOptions& options, Scalars& scalars) {
  static_assert(sizeof(OptimStages<T>) <= Scalars::kBytes);
  int index = 0;
  OptimRules<T>::for_each([&]<class Rule>() {
    static_assert(sizeof(Rule) <= Scalars::kBytes);
    if (index++ == rule) reinterpret_cast<Rule*>(scalars.rule)->prepare(hyper, state);
  });
  *reinterpret_cast<OptimStages<T>*>(scalars.stages) = OptimStages<T>::prepare(hyper, options);
}

// One thread per tensor.
__global__ void __launch_bounds__(kThreads)
    prepare(__grid_constant__ Argument<PrepareList> list, const Hyper* hyper, PrepareOptions options,
            Scalars* scalars) {
  const auto i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= list.count) return;
  const PrepareList::Item item = list.items[i];
  Hyper h = hyper[item.group];
  h.lr *= item.lr_scale;
  if (options.norm) options.stages.grad_scale *= clip_factor(*options.norm, options.max_norm);
  advance(h, *item.state);
  if (item.dtype == DType::f64)
    prepare_scalars<double>(item.rule, h, *item.state, options.stages, scalars[list.begin + i]);
  else
    prepare_scalars<float>(item.rule, h, *item.state, options.stages, scalars[list.begin + i]);
}

// --- the step ---------------------------------------------------------------------------------

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

// Loads of several elements stand before the first store, which might alias any of them.
template <class Rule, class T>
__global__ void __launch_bounds__(kThreads)
    step(__grid_constant__ Argument<TensorList> list, const Scalars* scalars, bool zero_grad) {
  const TensorEntry& tensor = list.find(blockIdx.x);
  const Arrays<Rule, T> arrays(list, tensor);
  const Rule rule = *reinterpret_cast<const Rule*>(scalars[tensor.index].rule);
  const OptimStages<T> stages = *reinterpret_cast<const OptimStages<T>*>(scalars[tensor.index].stages);
  const std::int64_t begin = std::int64_t{blockIdx.x - tensor.first_block} * kChunk;
  const std::int64_t end = begin + kChunk < tensor.elements ? begin + kChunk : tensor.elements;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kPerThread * kThreads) {
    Element<Rule, T> elements[kPerThread];
#pragma unroll
    for (int e = 0; e < kPerThread; ++e)
      if (i + e * kThreads < end) elements[e].load(arrays, i + e * kThreads);
#pragma unroll
    for (int e = 0; e < kPerThread; ++e) {
      if (i + e * kThreads >= end) break;
      elements[e].update(rule, stages);
      elements[e].store(arrays, stages, i + e * kThreads, zero_grad);
    }
  }
}

// --- the norm phase ---------------------------------------------------------------------------

// param[…], other[…]: sums of squares of tree blocks as cpu/kernels/optim.cpp's measure computes them.
template <class Rule, class T>
__global__ void __launch_bounds__(kThreads) measure(__grid_constant__ Argument<TensorList> list,
                                                    const Scalars* scalars, double* param, double* other) {
  const TensorEntry& tensor = list.find(blockIdx.x);
  const Arrays<Rule, T> arrays(list, tensor);
  const Rule rule = *reinterpret_cast<const Rule*>(scalars[tensor.index].rule);
  const OptimStages<T> stages = *reinterpret_cast<const OptimStages<T>*>(scalars[tensor.index].stages);
  const unsigned lane = threadIdx.x % kTreeLanes;
  const std::int64_t block =
      std::int64_t{blockIdx.x - tensor.first_block} * kTreeGroups + threadIdx.x / kTreeLanes;
  const std::int64_t begin = block * kTreeBlock;
  const std::int64_t end = begin + kTreeBlock < tensor.elements ? begin + kTreeBlock : tensor.elements;
  double param_sum = 0, other_sum = 0;
  for (std::int64_t i = begin + lane; i < end; i += kTreeLanes) {
    Element<Rule, T> e;
    e.load(arrays, i);
    const T value = rule.measure(e.param, stages.gradient(e.gradient, e.param), e.states);
#pragma unroll
    for (int k = 0; k < Rule::states.size; ++k) arrays.states[k][i] = e.states[k];
    param_sum = SumSquares::merge(param_sum, SumSquares::map(static_cast<double>(e.param)));
    other_sum = SumSquares::merge(other_sum, SumSquares::map(static_cast<double>(value)));
  }
  for (unsigned step = 1; step < kTreeLanes; step *= 2) {
    param_sum = SumSquares::merge(param_sum, shuffle_down(param_sum, step));
    other_sum = SumSquares::merge(other_sum, shuffle_down(other_sum, step));
  }
  if (lane != 0 || begin >= end) return;
  param[tensor.tree_block + block] = param_sum;
  other[tensor.tree_block + block] = other_sum;
}

// One thread per tensor.
template <class Rule>
__global__ void __launch_bounds__(kThreads)
    adapt(__grid_constant__ Argument<TensorList> list, Scalars* scalars, const double* param,
          const double* other) {
  const auto i = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  if (i >= list.count) return;
  const std::int32_t index = list.tensors[i].index;
  reinterpret_cast<Rule*>(scalars[index].rule)->adapt(sqrt(param[index]), sqrt(other[index]));
}

// --- launches ---------------------------------------------------------------------------------

// Calls launch_list(list, index of one of its tensors) for lists that hold all items with elements. Tensors
// of a list agree in what `kind` says of an item.
template <class Kind, class Launch>
void for_each_list(std::span<const OptimItem> items, std::int64_t elements_per_block, const Kind& kind,
                   const auto& states_of, const Launch& launch_list) {
  TensorLister lister;
  std::size_t last = 0;
  for (std::size_t i = 0; i < items.size(); ++i) {
    if (items[i].tensor.elements == 0) continue;
    const int states = states_of(items[i]);
    if (!lister.empty() && (kind(items[i]) != kind(items[last]) || !lister.fits(items[i].tensor, states))) {
      launch_list(lister.list(), items[last]);
      lister.clear();
    }
    last = i;
    lister.add(items[i].tensor, states, i, elements_per_block);
  }
  if (!lister.empty()) launch_list(lister.list(), items[last]);
}

struct RuleEntry {
  int states;
  void (*kernel)(Argument<TensorList>, const Scalars*, bool);
  void (*measure)(Argument<TensorList>, const Scalars*, double*, double*) = nullptr;  // null: no norm phase
  void (*adapt)(Argument<TensorList>, Scalars*, const double*, const double*) = nullptr;
};

template <class T>
const RuleEntry& rule_entry(int rule) {
  static const auto entries = [] {
    std::vector<RuleEntry> all;
    OptimRules<T>::for_each([&]<class Rule>() {
      all.push_back({Rule::states.size, step<Rule, T>});
      if constexpr (has_norm_phase<Rule>)
        all.back().measure = measure<Rule, T>, all.back().adapt = adapt<Rule>;
    });
    return all;
  }();
  return entries[static_cast<std::size_t>(rule)];
}

const RuleEntry& rule_entry(const OptimItem& item) {
  return item.dtype == DType::f64 ? rule_entry<double>(item.rule) : rule_entry<float>(item.rule);
}

void launch_prepare(const OptimStep& step, const Hyper* hyper, Scalars* scalars, Stream stream) {
  const PrepareOptions options{step.stages, step.max_norm.value_or(0), step.max_norm ? step.norm : nullptr};
  PrepareList list;
  for (std::size_t i = 0; i < step.items.size(); ++i) {
    const OptimItem& item = step.items[i];
    list.items[list.count++] = {item.state, item.lr_scale, item.group, static_cast<std::int16_t>(item.rule),
                                item.dtype};
    if (list.count < kMaxPrepared && i + 1 < step.items.size()) continue;
    launch(prepare, blocks_for(list.count, kThreads), kThreads, 0, stream, list, hyper, options, scalars);
    list.begin += list.count;
    list.count = 0;
  }
}

std::size_t count_tree_blocks(std::span<const OptimItem> items) {
  std::int64_t blocks = 0;
  for (const OptimItem& item : items) blocks += tree_blocks(item.tensor.elements);
  return static_cast<std::size_t>(blocks);
}

void launch_norm_phase(std::span<const OptimItem> items, Scalars* scalars, Stream stream) {
  if (std::none_of(items.begin(), items.end(),
                   [](const OptimItem& item) { return rule_entry(item).measure; }))
    return;
  const std::size_t bytes = count_tree_blocks(items) * sizeof(double);
  const Scratch param(bytes, stream), other(bytes, stream);
  const Scratch param_totals(items.size() * sizeof(double), stream);
  const Scratch other_totals(items.size() * sizeof(double), stream);
  for_each_list(
      items, kTreeGroups * kTreeBlock, [](const OptimItem& item) { return std::pair(item.rule, item.dtype); },
      [](const OptimItem& item) { return rule_entry(item).states; },
      [&](const TensorList& list, const OptimItem& item) {
        const RuleEntry& rule = rule_entry(item);
        if (!rule.measure) return;
        const auto tensors = static_cast<unsigned>(list.count);
        launch(rule.measure, list.blocks, kThreads, 0, stream, list, scalars, param.as<double>(),
               other.as<double>());
        launch(merge_squares, tensors, kThreads, 0, stream, list, param.as<double>(),
               param_totals.as<double>());
        launch(merge_squares, tensors, kThreads, 0, stream, list, other.as<double>(),
               other_totals.as<double>());
        launch(rule.adapt, blocks_for(list.count, kThreads), kThreads, 0, stream, list, scalars,
               param_totals.as<double>(), other_totals.as<double>());
      });
}

}  // namespace

void optim_norm(std::span<const OptimItem> items, double grad_scale, double* norm, Stream stream) {
  const Scratch partial(count_tree_blocks(items) * sizeof(double), stream);
  const Scratch totals(items.size() * sizeof(double), stream);
  fill_zero(totals.as<void>(), items.size() * sizeof(double), stream);  // of tensors without elements
  for_each_list(
      items, kTreeGroups * kTreeBlock, [](const OptimItem& item) { return item.dtype; },
      [](const OptimItem&) { return 0; },
      [&](const TensorList& list, const OptimItem& item) {
        launch(item.dtype == DType::f64 ? sum_squares<double> : sum_squares<float>, list.blocks, kThreads, 0,
               stream, list, partial.as<double>());
        launch(merge_squares, static_cast<unsigned>(list.count), kThreads, 0, stream, list,
               partial.as<double>(), totals.as<double>());
      });
  launch(total_norm, 1, kWarpLanes, 0, stream, totals.as<double>(), std::ssize(items), grad_scale, norm);
}

void optim_step(const OptimStep& step, Stream stream) {
  if (step.max_norm) optim_norm(step.items, step.stages.grad_scale, step.norm, stream);
  if (step.items.empty()) return;
  const Scratch hyper(step.hyper.size_bytes(), stream);
  const Scratch scalars(step.items.size() * sizeof(Scalars), stream);
  copy_to_device(hyper.as<void>(), step.hyper.data(), step.hyper.size_bytes(), stream);
  launch_prepare(step, hyper.as<Hyper>(), scalars.as<Scalars>(), stream);
  launch_norm_phase(step.items, scalars.as<Scalars>(), stream);
  for_each_list(
      step.items, kChunk, [](const OptimItem& item) { return std::pair(item.rule, item.dtype); },
      [](const OptimItem& item) { return rule_entry(item).states; },
      [&](const TensorList& list, const OptimItem& item) {
        launch(rule_entry(item).kernel, list.blocks, kThreads, 0, stream, list, scalars.as<Scalars>(),
               step.zero_grad);
      });
}

}  // namespace thalweg::cuda
