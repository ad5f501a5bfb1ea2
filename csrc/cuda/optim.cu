// Optimizer steps: every rule of rules/optim.h over many tensors in one launch.
//
// 1. With a norm limit, the squares of all gradients are summed through the reduction tree.
// 2. One thread per tensor advances its step state and prepares the rule's and the stages' scalars.
// 3. For rules with a norm phase: the norms of every tensor, through the same tree, adapt its scalars.
// 4. One launch per rule, dtype and few hundred tensors: pointers travel as a kernel argument, a thread
//    block takes a chunk of one tensor.
#include <algorithm>
#include <vector>

#include "cuda/optim_prepare.cuh"
#include "cuda/optim_tensors.cuh"
#include "rules/reduce.h"

namespace thalweg::cuda {
namespace {

constexpr int kPerThread = 4;
constexpr std::int64_t kChunk = 64 * kOptimThreads;  // elements of a tensor that a thread block updates

// --- the global norm --------------------------------------------------------------------------

constexpr int kTreeGroups = kOptimThreads / kTreeLanes;  // tree blocks that a thread block sums

// partial[tensor.tree_block + b]: sum of squares of tree block b, as cpu/optim.cpp computes it.
template <class T>
__global__ void __launch_bounds__(kOptimThreads)
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
__global__ void __launch_bounds__(kOptimThreads)
    merge_squares(__grid_constant__ Argument<TensorList> list, double* partial, double* totals) {
  const TensorEntry& tensor = list.tensors[blockIdx.x];
  double* values = partial + tensor.tree_block;
  const std::int64_t blocks = tree_blocks(tensor.elements);
  for (std::int64_t stride = 1; stride < blocks; stride *= 2) {
    for (std::int64_t i = threadIdx.x * 2 * stride; i + stride < blocks; i += kOptimThreads * 2 * stride)
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

// --- the step ---------------------------------------------------------------------------------

// Loads of several elements stand before the first store, which might alias any of them.
template <class Rule, class T>
__global__ void __launch_bounds__(kOptimThreads)
    step(__grid_constant__ Argument<TensorList> list, const Scalars* scalars, bool zero_grad) {
  const TensorEntry& tensor = list.find(blockIdx.x);
  const Arrays<Rule, T> arrays(list, tensor);
  const Rule rule = *reinterpret_cast<const Rule*>(scalars[tensor.index].rule);
  const OptimStages<T> stages = *reinterpret_cast<const OptimStages<T>*>(scalars[tensor.index].stages);
  const std::int64_t begin = std::int64_t{blockIdx.x - tensor.first_block} * kChunk;
  const std::int64_t end = begin + kChunk < tensor.elements ? begin + kChunk : tensor.elements;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += kPerThread * kOptimThreads) {
    Element<Rule, T> elements[kPerThread];
#pragma unroll
    for (int e = 0; e < kPerThread; ++e)
      if (i + e * kOptimThreads < end) elements[e].load(arrays, i + e * kOptimThreads);
#pragma unroll
    for (int e = 0; e < kPerThread; ++e) {
      if (i + e * kOptimThreads >= end) break;
      elements[e].update(rule, stages);
      elements[e].store(arrays, stages, i + e * kOptimThreads, zero_grad);
    }
  }
}

// --- the norm phase ---------------------------------------------------------------------------

// param[…], other[…]: sums of squares of tree blocks as cpu/kernels/optim.cpp's measure computes them.
template <class Rule, class T>
__global__ void __launch_bounds__(kOptimThreads)
    measure(__grid_constant__ Argument<TensorList> list, const Scalars* scalars, double* param,
            double* other) {
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
__global__ void __launch_bounds__(kOptimThreads)
    adapt(__grid_constant__ Argument<TensorList> list, Scalars* scalars, const double* param,
          const double* other) {
  const auto i = static_cast<int>(blockIdx.x * kOptimThreads + threadIdx.x);
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
    launch(prepare, blocks_for(list.count, kOptimThreads), kOptimThreads, 0, stream, list, hyper, options,
           scalars);
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
        launch(rule.measure, list.blocks, kOptimThreads, 0, stream, list, scalars, param.as<double>(),
               other.as<double>());
        launch(merge_squares, tensors, kOptimThreads, 0, stream, list, param.as<double>(),
               param_totals.as<double>());
        launch(merge_squares, tensors, kOptimThreads, 0, stream, list, other.as<double>(),
               other_totals.as<double>());
        launch(rule.adapt, blocks_for(list.count, kOptimThreads), kOptimThreads, 0, stream, list, scalars,
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
        launch(item.dtype == DType::f64 ? sum_squares<double> : sum_squares<float>, list.blocks,
               kOptimThreads, 0, stream, list, partial.as<double>());
        launch(merge_squares, static_cast<unsigned>(list.count), kOptimThreads, 0, stream, list,
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
        launch(rule_entry(item).kernel, list.blocks, kOptimThreads, 0, stream, list, scalars.as<Scalars>(),
               step.zero_grad);
      });
}

}  // namespace thalweg::cuda
