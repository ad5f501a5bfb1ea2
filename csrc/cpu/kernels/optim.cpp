// One pass over a tensor, in chunks that stay in L1: gather and widen the gradient, widen parameter
// and states, apply the rule, average, round, zero. Every array is read and written once, whatever
// stages are on.
#include "cpu/kernels/optim.h"

#include <cstddef>
#include <cstring>

#include "cpu/kernels/lanes.h"
#include "cpu/kernels/quantize.h"
#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

// Seven float arrays of this length (p, g, three states, average, summed gradient) fit in 32 KiB.
constexpr std::int64_t kChunk = 1024;

template <class T>
const T* source(const OptimTensor& tensor, int k) {
  return static_cast<const T*>(tensor.sources[k]);
}

template <class Format>
void sum_half_sources(const OptimTensor& tensor, std::int64_t begin, std::int64_t n, float* __restrict sum) {
  const std::uint16_t* __restrict first = source<std::uint16_t>(tensor, 0) + begin;
  for (std::int64_t i = 0; i < n; ++i) sum[i] = Format::widen(first[i]);
  for (int k = 1; k < tensor.source_count; ++k) {
    const std::uint16_t* __restrict g = source<std::uint16_t>(tensor, k) + begin;
    for (std::int64_t i = 0; i < n; ++i) sum[i] += Format::widen(g[i]);
  }
}

template <class T>
void sum_sources(const OptimTensor& tensor, std::int64_t begin, std::int64_t end, void* result) {
  if (tensor.source_format != Half::none) {
    with_half(tensor.source_format, [&]<class Format>(Format) {
      sum_half_sources<Format>(tensor, begin, end - begin, static_cast<float*>(result));
    });
    return;
  }
  T* __restrict sum = static_cast<T*>(result);
  const std::int64_t n = end - begin;
  std::memcpy(sum, source<T>(tensor, 0) + begin, static_cast<std::size_t>(n) * sizeof(T));
  for (int k = 1; k < tensor.source_count; ++k) {
    const T* __restrict g = source<T>(tensor, k) + begin;
    for (std::int64_t i = 0; i < n; ++i) sum[i] += g[i];
  }
}

// The gradient of n elements from `begin` on: in place where one array is it, else summed in `room`.
template <class T>
const T* gather(const OptimTensor& tensor, std::int64_t begin, std::int64_t n, T* room) {
  if (tensor.source_count == 1 && tensor.source_format == Half::none) return source<T>(tensor, 0) + begin;
  sum_sources<T>(tensor, begin, begin + n, room);
  return room;
}

// Where the parameter is not its master rounded, somebody else has written it (loaded weights, an
// average swapped in) and the master takes its value. Costs nothing: the store needs the line anyway.
template <class Format>
void follow(float* __restrict master, const std::uint16_t* __restrict low, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i)
    master[i] = Format::narrow(master[i]) == low[i] ? master[i] : Format::widen(low[i]);
}

template <class Format>
void round(const float* __restrict master, std::uint16_t* __restrict low, std::int64_t n) {
  for (std::int64_t i = 0; i < n; ++i) low[i] = Format::narrow(master[i]);
}

// What the rule sees as the parameter, elements [begin, begin + n).
template <class T>
T* load_param(const OptimTensor& tensor, std::int64_t begin, std::int64_t n) {
  T* const param = static_cast<T*>(tensor.param) + begin;
  if constexpr (sizeof(T) == sizeof(float))
    if (tensor.low && !tensor.low_is_copy)
      with_half(tensor.low_format,
                [&]<class Format>(Format) { follow<Format>(param, tensor.low + begin, n); });
  return param;
}

template <class T>
void store_param(const OptimTensor& tensor, std::int64_t begin, std::int64_t n) {
  if constexpr (sizeof(T) == sizeof(float))
    if (tensor.low)
      with_half(tensor.low_format, [&]<class Format>(Format) {
        round<Format>(static_cast<const float*>(tensor.param) + begin, tensor.low + begin, n);
      });
}

// State k, elements [begin, begin + n), `begin` a multiple of kQuantBlock.
template <class Rule>
void load_state(const OptimTensor& tensor, int k, std::int64_t begin, std::int64_t n, float* x) {
  const bool is_signed = (Rule::nonnegative >> k & 1) == 0;
  const std::uint8_t* codes = static_cast<const std::uint8_t*>(tensor.states[k]) + begin;
  const float* absmax = tensor.absmax[k] + begin / kQuantBlock;
  for (std::int64_t i = 0; i < n; i += kQuantBlock, ++absmax) {
    const std::int64_t length = n - i < kQuantBlock ? n - i : kQuantBlock;
    (is_signed ? dequantize<true> : dequantize<false>)(codes + i, *absmax, length, x + i);
  }
}

template <class Rule>
void store_state(const OptimTensor& tensor, int k, std::int64_t begin, std::int64_t n, const float* x) {
  const bool is_signed = (Rule::nonnegative >> k & 1) == 0;
  std::uint8_t* codes = static_cast<std::uint8_t*>(tensor.states[k]) + begin;
  float* absmax = tensor.absmax[k] + begin / kQuantBlock;
  for (std::int64_t i = 0; i < n; i += kQuantBlock, ++absmax) {
    const std::int64_t length = n - i < kQuantBlock ? n - i : kQuantBlock;
    *absmax = (is_signed ? quantize<true> : quantize<false>)(x + i, length, codes + i);
  }
}

template <class T>
void zero_sources(const OptimTensor& tensor, std::int64_t begin, std::int64_t n) {
  const std::int64_t size = tensor.source_format == Half::none ? static_cast<std::int64_t>(sizeof(T)) : 2;
  for (int k = 0; k < tensor.source_count; ++k)
    std::memset(static_cast<std::byte*>(tensor.sources[k]) + begin * size, 0,
                static_cast<std::size_t>(n * size));
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
  constexpr bool kQuantizes = has_8bit_states<Rule> && Rule::states.size > 0 && sizeof(T) == sizeof(float);
  alignas(64) T sum[kChunk], wide[kQuantizes ? Rule::states.size : 1][kQuantizes ? kChunk : 1];
  for (std::int64_t i = begin; i < end; i += kChunk) {
    const std::int64_t n = end - i < kChunk ? end - i : kChunk;
    const T* gradient = gather(tensor, i, n, sum);
    T* const param = load_param<T>(tensor, i, n);
    T* states[kMaxStates] = {};
    for (int k = 0; k < Rule::states.size; ++k) states[k] = static_cast<T*>(tensor.states[k]) + i;
    if constexpr (kQuantizes)
      for (int k = 0; k < Rule::states.size && tensor.absmax[k]; ++k)
        load_state<Rule>(tensor, k, i, n, states[k] = wide[k]);
    apply(*static_cast<const Rule*>(rule), stage, param, gradient, states, n);
    if constexpr (kQuantizes)
      for (int k = 0; k < Rule::states.size && tensor.absmax[k]; ++k)
        store_state<Rule>(tensor, k, i, n, wide[k]);
    if (tensor.average) average(stage, static_cast<T*>(tensor.average) + i, param, n);
    store_param<T>(tensor, i, n);
    if (zero_grad) zero_sources<T>(tensor, i, n);
  }
}

template <class Rule, class T>
void measure(const OptimTensor& tensor, const void* rule, const void* stages, std::int64_t begin,
             std::int64_t end, double* squares) {
  alignas(64) T sum[kTreeBlock], values[kTreeBlock];
  const std::int64_t n = end - begin;
  const Rule r = *static_cast<const Rule*>(rule);
  const OptimStages<T> stage = *static_cast<const OptimStages<T>*>(stages);
  const T* __restrict p = load_param<T>(tensor, begin, n);
  const T* __restrict g = gather(tensor, begin, n, sum);
  T* __restrict s0 = static_cast<T*>(tensor.states[0]) + begin;
  T* __restrict s1 = Rule::states.size > 1 ? static_cast<T*>(tensor.states[1]) + begin : nullptr;
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) {
    T s[kMaxStates];
    s[0] = s0[i];
    if constexpr (Rule::states.size > 1) s[1] = s1[i];
    values[i] = r.measure(p[i], stage.gradient(g[i], p[i]), s);
    s0[i] = s[0];
    if constexpr (Rule::states.size > 1) s1[i] = s[1];
  }
  squares[0] = reduce_block<SumSquares>(n, [](auto x) { return SumSquares::map(x); }, p);
  squares[1] = reduce_block<SumSquares>(n, [](auto x) { return SumSquares::map(x); }, values);
}

template <class T>
void fill_rules(OptimStepFunction* steps, OptimMeasureFunction* measures) {
  OptimRules<T>::for_each([&]<class Rule>() {
    static_assert(Rule::states.size <= kMaxStates);
    *steps++ = step<Rule, T>;
    if constexpr (has_norm_phase<Rule>) *measures = measure<Rule, T>;
    ++measures;
  });
}

}  // namespace

void fill(OptimKernels& kernels) {
  fill_rules<float>(kernels.step_f32, kernels.measure_f32);
  fill_rules<double>(kernels.step_f64, kernels.measure_f64);
  kernels.sum_sources_f32 = sum_sources<float>;
  kernels.sum_sources_f64 = sum_sources<double>;
}

}  // namespace thalweg::THALWEG_ISA
