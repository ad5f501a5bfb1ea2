// One pass over a tensor, in chunks that stay in L1: gather the gradient, apply the rule, average,
// zero. Every array is read and written once, whatever stages are on.
#include "cpu/kernels/optim.h"

#include <cstring>

#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

// Seven float arrays of this length (p, g, three states, average, summed gradient) fit in 32 KiB.
constexpr std::int64_t kChunk = 1024;

template <class T>
const T* source(const OptimTensor& tensor, int k) {
  return static_cast<const T*>(tensor.sources[k]);
}

template <class T>
void sum_sources(const OptimTensor& tensor, std::int64_t begin, std::int64_t end, void* result) {
  T* __restrict sum = static_cast<T*>(result);
  const std::int64_t n = end - begin;
  std::memcpy(sum, source<T>(tensor, 0) + begin, static_cast<std::size_t>(n) * sizeof(T));
  for (int k = 1; k < tensor.source_count; ++k) {
    const T* __restrict g = source<T>(tensor, k) + begin;
    for (std::int64_t i = 0; i < n; ++i) sum[i] += g[i];
  }
}

template <class Rule, class T>
void apply(const Rule& rule, const OptimStages<T>& stages, T* __restrict p, const T* __restrict g,
           T* const* states, std::int64_t n) {
  constexpr int kStates = Rule::states.size;
  T* __restrict s0 = states[0];
  T* __restrict s1 = states[1];
  T* __restrict s2 = states[2];
  const Rule r = rule;  // local copies: stores through p cannot change them
  const OptimStages<T> stage = stages;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) {
    T s[kMaxStates];
    if constexpr (kStates > 0) s[0] = s0[i];
    if constexpr (kStates > 1) s[1] = s1[i];
    if constexpr (kStates > 2) s[2] = s2[i];
    T param = p[i];
    const T gradient = stage.gradient(g[i], param);
    param *= stage.keep;
    r(param, gradient, s);
    p[i] = param;
    if constexpr (kStates > 0) s0[i] = s[0];
    if constexpr (kStates > 1) s1[i] = s[1];
    if constexpr (kStates > 2) s2[i] = s[2];
  }
}

template <class T>
void average(const OptimStages<T>& stages, T* __restrict mean, const T* __restrict p, std::int64_t n) {
  const T keep = stages.ema_keep, take = stages.ema_take;
  for (std::int64_t i = 0; i < n; ++i) mean[i] = keep * mean[i] + take * p[i];
}

template <class Rule, class T>
void step(const OptimTensor& tensor, const void* rule, const void* stages, std::int64_t begin,
          std::int64_t end, bool zero_grad) {
  const auto& stage = *static_cast<const OptimStages<T>*>(stages);
  T* const param = static_cast<T*>(tensor.param);
  alignas(64) T sum[kChunk];
  for (std::int64_t i = begin; i < end; i += kChunk) {
    const std::int64_t n = end - i < kChunk ? end - i : kChunk;
    const T* gradient = source<T>(tensor, 0) + i;
    if (tensor.source_count > 1) {
      sum_sources<T>(tensor, i, i + n, sum);
      gradient = sum;
    }
    T* states[kMaxStates] = {};
    for (int k = 0; k < Rule::states.size; ++k) states[k] = static_cast<T*>(tensor.states[k]) + i;
    apply(*static_cast<const Rule*>(rule), stage, param + i, gradient, states, n);
    if (tensor.average) average(stage, static_cast<T*>(tensor.average) + i, param + i, n);
    if (zero_grad)
      for (int k = 0; k < tensor.source_count; ++k)
        std::memset(static_cast<T*>(tensor.sources[k]) + i, 0, static_cast<std::size_t>(n) * sizeof(T));
  }
}

template <class T>
void fill_rules(OptimStepFunction* table) {
  OptimRules<T>::for_each([&]<class Rule>() { *table++ = step<Rule, T>; });
}

}  // namespace

void fill(OptimKernels& kernels) {
  fill_rules<float>(kernels.step_f32);
  fill_rules<double>(kernels.step_f64);
  kernels.sum_sources_f32 = sum_sources<float>;
  kernels.sum_sources_f64 = sum_sources<double>;
}

}  // namespace thalweg::THALWEG_ISA
