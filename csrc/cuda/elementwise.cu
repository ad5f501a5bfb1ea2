// Element-wise operations: one kernel per rule and dtype, for every layout.
#include <type_traits>

#include "cuda/families.h"
#include "cuda/launch.cuh"
#include "cuda/layout.cuh"
#include "rules/elementwise.h"

namespace thalweg::cuda {
namespace {

constexpr unsigned kThreads = 256;
constexpr int kPerThread = 4;  // independent loads in flight

template <class Rule, class T>
__device__ Rule make_rule(double parameter) {
  if constexpr (requires { Rule::parameter; })
    return Rule{static_cast<T>(parameter)};
  else
    return Rule{};
}

// y = rule(x), arrays 0 and 1 of the layout.
template <class Rule, class T>
__global__ void __launch_bounds__(kThreads)
    apply_unary(Layout<2> layout, std::int64_t n, const T* x, T* y, double parameter) {
  const Rule rule = make_rule<Rule, T>(parameter);
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads * kPerThread + threadIdx.x;
  for (int k = 0; k < kPerThread; ++k) {
    const std::int64_t i = first + k * kThreads;
    if (i >= n) return;
    const auto at = layout.offsets(i);
    y[at.of[1]] = rule(x[at.of[0]]);
  }
}

template <class T>
struct Input {
  const T* data;  // null: the number
  T number;
  __device__ T at(std::int64_t offset) const { return data ? data[offset] : number; }
};

// y = rule(a, b), arrays 0 to 2 of the layout. Rules of two operands have no parameter but LeakyRelu's
// gradient.
template <class Rule, class T>
__global__ void __launch_bounds__(kThreads)
    apply_binary(Layout<3> layout, std::int64_t n, Input<T> a, Input<T> b, T* y, double parameter) {
  const Rule rule = make_rule<Rule, T>(parameter);
  const std::int64_t first = std::int64_t{blockIdx.x} * kThreads * kPerThread + threadIdx.x;
  for (int k = 0; k < kPerThread; ++k) {
    const std::int64_t i = first + k * kThreads;
    if (i >= n) return;
    const auto at = layout.offsets(i);
    y[at.of[2]] = rule(a.at(at.of[0]), b.at(at.of[1]));
  }
}

// The stride of `v` along axis i of y, 0 where it is broadcast or a number.
std::int64_t broadcast_stride(const Operand& operand, const View& y, int i) {
  const View& v = operand.view;
  const int axis = i - (y.rank - v.rank);
  return operand.is_number || axis < 0 || v.shape[axis] == 1 ? 0 : v.strides[axis];
}

template <class T>
Input<T> input(const Operand& operand) {
  if (operand.is_number) return {nullptr, static_cast<T>(operand.number)};
  return {operand.view.as<const T>(), T{}};
}

template <class T>
struct UnaryTable {
  using Kernel = void (*)(Layout<2>, std::int64_t, const T*, T*, double);
  Kernel kernels[UnaryRules::kSize];
  UnaryTable() {
    UnaryRules::for_each([&]<template <class> class Rule>(int i) { kernels[i] = apply_unary<Rule<T>, T>; });
  }
};

template <class Rules, class T>
struct BinaryTable {
  using Kernel = void (*)(Layout<3>, std::int64_t, Input<T>, Input<T>, T*, double);
  Kernel kernels[Rules::kSize];
  BinaryTable() {
    Rules::for_each([&]<template <class> class Rule>(int i) { kernels[i] = apply_binary<Rule<T>, T>; });
  }
};

template <class Rules>
void launch_binary(int rule, double parameter, const Operand& a, const Operand& b, const View& y,
                   Stream stream) {
  Layout<3> layout;
  for (int i = 0; i < y.rank; ++i)
    layout.append(y.shape[i], {broadcast_stride(a, y, i), broadcast_stride(b, y, i), y.strides[i]});
  const std::int64_t n = y.elements();
  if (n == 0) return;
  with_float_type(y.dtype, [&]<class T>(T) {
    static const BinaryTable<Rules, T> table;
    launch(table.kernels[rule], blocks_for(n, kThreads * kPerThread), kThreads, 0, stream, layout, n,
           input<T>(a), input<T>(b), y.as<T>(), parameter);
  });
}

}  // namespace

void unary(int rule, double parameter, const View& x, const View& y, Stream stream) {
  Layout<2> layout;
  for (int i = 0; i < y.rank; ++i) layout.append(y.shape[i], {x.strides[i], y.strides[i]});
  const std::int64_t n = y.elements();
  if (n == 0) return;
  with_float_type(y.dtype, [&]<class T>(T) {
    static const UnaryTable<T> table;
    launch(table.kernels[rule], blocks_for(n, kThreads * kPerThread), kThreads, 0, stream, layout, n,
           x.as<const T>(), y.as<T>(), parameter);
  });
}

void copy(const View& x, const View& y, Stream stream) {
  int copy_rule = -1;
  UnaryRules::for_each([&]<template <class> class Rule>(int i) {
    if (std::is_same_v<Rule<float>, Copy<float>>) copy_rule = i;
  });
  unary(copy_rule, 0, x, y, stream);
}

void binary(int rule, const Operand& a, const Operand& b, const View& y, Stream stream) {
  launch_binary<BinaryRules>(rule, 0, a, b, y, stream);
}

void gradient(int rule, double parameter, const View& dy, const View& saved, const View& dx, Stream stream) {
  launch_binary<GradientRules>(rule, parameter, {dy}, {saved}, dx, stream);
}

}  // namespace thalweg::cuda
