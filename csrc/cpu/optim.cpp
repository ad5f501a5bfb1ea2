#include "cpu/optim.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "base/parallel.h"
#include "base/tree.h"
#include "cpu/isa.h"

namespace thalweg::cpu {
namespace {

constexpr std::int64_t kSliceElements = 8 * kTreeBlock;  // 0.5 MiB of Adam's four float arrays
constexpr std::int64_t kRunElements = 4 * kTreeBlock;    // a few µs of work: worth a thread

struct RuleEntry {
  const char* name;
  int state_count;
  const char* const* state_names;
  bool has_8bit_states;
  void (*prepare_f32)(const Hyper&, StepState&, void*);
  void (*prepare_f64)(const Hyper&, StepState&, void*);
  void (*adapt_f32)(void*, double, double);  // null: no norm phase
  void (*adapt_f64)(void*, double, double);
};

template <template <class> class Rule, class T>
void prepare_rule(const Hyper& hyper, StepState& state, void* scalars) {
  static_assert(sizeof(Rule<T>) <= sizeof(OptimScalars));
  (new (scalars) Rule<T>)->prepare(hyper, state);
}

template <class Rule>
constexpr auto adapt_function() -> void (*)(void*, double, double) {
  if constexpr (has_norm_phase<Rule>)
    return [](void* rule, double norm_p, double norm) { static_cast<Rule*>(rule)->adapt(norm_p, norm); };
  else
    return nullptr;
}

template <class... Rules>
struct RuleTable;
template <template <class> class... Rule>
struct RuleTable<TypeList<Rule<float>...>> {
  static constexpr RuleEntry entries[] = {{Rule<float>::name, Rule<float>::states.size,
                                           Rule<float>::states.names, has_8bit_states<Rule<float>>,
                                           prepare_rule<Rule, float>, prepare_rule<Rule, double>,
                                           adapt_function<Rule<float>>(), adapt_function<Rule<double>>()}...};
};

constexpr const auto& kRules = RuleTable<OptimRules<float>>::entries;

template <class T>
void sum_sources(const OptimTensor& tensor, std::int64_t begin, std::int64_t end, T* sum) {
  const OptimKernels& table = kernels().optim;
  (sizeof(T) == 8 ? table.sum_sources_f64 : table.sum_sources_f32)(tensor, begin, end, sum);
}

template <class T>
double block_sum_squares(const OptimTensor& tensor, std::int64_t begin, std::int64_t end) {
  const auto& table = kernels();
  alignas(64) T sum[kTreeBlock];
  const T* gradient = sum;
  if (tensor.source_count == 1 && tensor.source_format == Half::none)
    gradient = static_cast<const T*>(tensor.sources[0]) + begin;
  else
    sum_sources(tensor, begin, end, sum);
  if constexpr (sizeof(T) == 8)
    return table.reduce.sum_squares_f64(gradient, end - begin);
  else
    return table.reduce.sum_squares_f32(gradient, end - begin);
}

}  // namespace

void OptimSlices::add(std::int64_t tensor, std::int64_t elements) {
  for (std::int64_t begin = 0; begin < elements; begin += kSliceElements) {
    const std::int64_t end = std::min(begin + kSliceElements, elements);
    slices.push_back({tensor, begin, end});
    run_elements_ += end - begin;
    if (run_elements_ >= kRunElements) {
      runs.push_back(static_cast<std::int64_t>(slices.size()));
      run_elements_ = 0;
    }
  }
}

void prepare(OptimWork& work, const Hyper& hyper, StepState& state, const OptimStageOptions& options) {
  const RuleEntry& rule = kRules[work.rule];
  advance(hyper, state);
  (work.dtype == DType::f64 ? rule.prepare_f64 : rule.prepare_f32)(hyper, state, &work.rule_scalars);
  with_float_type(work.dtype, [&](auto zero) {
    using Stages = OptimStages<decltype(zero)>;
    static_assert(sizeof(Stages) <= sizeof(OptimScalars));
    new (&work.stages) Stages(Stages::prepare(hyper, options));
  });
}

// Calls f(slice) for the slices of every tensor that has a gradient, in parallel.
template <class F>
static void for_each_slice(const std::vector<OptimWork>& work, const OptimSlices& cut, const F& f) {
  const auto closed = static_cast<std::int64_t>(cut.runs.size()) - 1;
  const auto count = static_cast<std::int64_t>(cut.slices.size());
  const std::int64_t runs = closed + (cut.runs.back() < count ? 1 : 0);  // the last run may be open
  parallel_for(runs, 1, [&](std::int64_t begin, std::int64_t end) {
    const std::int64_t last = end > closed ? count : cut.runs[static_cast<std::size_t>(end)];
    for (std::int64_t i = cut.runs[static_cast<std::size_t>(begin)]; i < last; ++i) {
      const auto& slice = cut.slices[static_cast<std::size_t>(i)];
      const OptimWork& item = work[static_cast<std::size_t>(slice.tensor)];
      if (item.tensor.source_count > 0) f(item, slice);
    }
  });
}

void optim_step(const std::vector<OptimWork>& work, const OptimSlices& slices, bool zero_grad) {
  const OptimKernels& table = kernels().optim;
  for_each_slice(work, slices, [&](const OptimWork& item, const OptimSlices::Slice& slice) {
    const auto* steps = item.dtype == DType::f64 ? table.step_f64 : table.step_f32;
    steps[item.rule](item.tensor, &item.rule_scalars, &item.stages, slice.begin, slice.end, zero_grad);
  });
}

// Where each tensor's tree blocks begin in an array of all of them, and its length at the end.
static std::vector<std::int64_t> first_blocks(const std::vector<OptimWork>& work) {
  std::vector<std::int64_t> first(work.size() + 1, 0);
  for (std::size_t i = 0; i < work.size(); ++i)
    first[i + 1] = first[i] + tree_blocks(work[i].tensor.elements);
  return first;
}

void optim_adapt(std::vector<OptimWork>& work, const OptimSlices& slices) {
  if (std::none_of(work.begin(), work.end(),
                   [](const OptimWork& item) { return kRules[item.rule].adapt_f32; }))
    return;
  const OptimKernels& table = kernels().optim;
  const std::vector<std::int64_t> first = first_blocks(work);
  const auto blocks = static_cast<std::size_t>(first.back());
  std::vector<double> param(blocks), other(blocks);
  for_each_slice(work, slices, [&](const OptimWork& item, const OptimSlices::Slice& slice) {
    const auto measure = (item.dtype == DType::f64 ? table.measure_f64 : table.measure_f32)[item.rule];
    if (!measure) return;
    for (std::int64_t begin = slice.begin; begin < slice.end; begin += kTreeBlock) {
      const std::int64_t end = std::min(begin + kTreeBlock, slice.end);
      double squares[2];
      measure(item.tensor, &item.rule_scalars, &item.stages, begin, end, squares);
      const auto block =
          static_cast<std::size_t>(first[static_cast<std::size_t>(slice.tensor)] + begin / kTreeBlock);
      param[block] = squares[0], other[block] = squares[1];
    }
  });
  for (std::size_t i = 0; i < work.size(); ++i) {
    const RuleEntry& rule = kRules[work[i].rule];
    if (!rule.adapt_f32 || work[i].tensor.source_count == 0) continue;
    const auto norm = [&](std::vector<double>& squares) {
      return std::sqrt(sum_pairwise(squares.data() + first[i], first[i + 1] - first[i]));
    };
    (work[i].dtype == DType::f64 ? rule.adapt_f64 : rule.adapt_f32)(&work[i].rule_scalars, norm(param),
                                                                    norm(other));
  }
}

void optim_sum_squares(const std::vector<OptimWork>& work, const OptimSlices& slices,
                       std::vector<double>& totals) {
  const std::vector<std::int64_t> first = first_blocks(work);
  std::vector<double> partial(static_cast<std::size_t>(first.back()));
  for_each_slice(work, slices, [&](const OptimWork& item, const OptimSlices::Slice& slice) {
    double* blocks = partial.data() + first[static_cast<std::size_t>(slice.tensor)];
    for (std::int64_t begin = slice.begin; begin < slice.end; begin += kTreeBlock) {
      const std::int64_t end = std::min(begin + kTreeBlock, slice.end);
      blocks[begin / kTreeBlock] = with_float_type(
          item.dtype, [&](auto zero) { return block_sum_squares<decltype(zero)>(item.tensor, begin, end); });
    }
  });
  totals.resize(work.size());
  for (std::size_t i = 0; i < work.size(); ++i)
    totals[i] = sum_pairwise(partial.data() + first[i], first[i + 1] - first[i]);
}

bool optim_is_finite(const OptimWork& item) {
  return with_float_type(item.dtype, [&]<class T>(T) {
    T sum[kTreeBlock];
    for (std::int64_t begin = 0; begin < item.tensor.elements; begin += kTreeBlock) {
      const std::int64_t end = std::min(begin + kTreeBlock, item.tensor.elements);
      sum_sources(item.tensor, begin, end, sum);
      if (!std::all_of(sum, sum + (end - begin), [](T g) { return std::isfinite(g); })) return false;
    }
    return true;
  });
}

void optim_zero_gradients(const std::vector<OptimWork>& work, const OptimSlices& slices) {
  for_each_slice(work, slices, [&](const OptimWork& item, const OptimSlices::Slice& slice) {
    const std::int64_t size = item.tensor.source_format == Half::none ? size_of(item.dtype) : 2;
    for (int k = 0; k < item.tensor.source_count; ++k)
      std::memset(static_cast<std::byte*>(item.tensor.sources[k]) + slice.begin * size, 0,
                  static_cast<std::size_t>((slice.end - slice.begin) * size));
  });
}

const char* rule_name(int rule) { return kRules[rule].name; }
int rule_state_count(int rule) { return kRules[rule].state_count; }
bool rule_has_8bit_states(int rule) { return kRules[rule].has_8bit_states; }
const char* rule_state_name(int rule, int state) { return kRules[rule].state_names[state]; }

}  // namespace thalweg::cpu
