// Batch normalisation, forward and backward (Ioffe & Szegedy 2015).
#include <optional>
#include <type_traits>

#include "cuda/activation.cuh"
#include "cuda/channel_sums.cuh"
#include "cuda/families.h"
#include "cuda/launch.cuh"
#include "rules/norm.h"

namespace thalweg::cuda {
namespace {

constexpr int kPerThread = 4;

// --- elements ---------------------------------------------------------------------------------

struct NormalizeInputs {
  ChannelVector mean, rstd, gamma, beta;
};

template <class T>
__global__ void prepare_normalize(std::int64_t channels, NormalizeInputs in, Normalize<T>* rules) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kChannelThreads + threadIdx.x;
  if (c < channels)
    rules[c] = Normalize<T>::prepare(in.mean.at(c), in.rstd.at(c), in.gamma.at(c), in.beta.at(c));
}

// f(i, channel of i) for kPerThread elements of a thread.
template <class F>
__device__ void for_each_element(const ChannelShape& shape, const F& f) {
  const std::int64_t first = std::int64_t{blockIdx.x} * kChannelThreads * kPerThread + threadIdx.x;
#pragma unroll
  for (int k = 0; k < kPerThread; ++k) {
    const std::int64_t i = first + k * kChannelThreads;
    if (i < shape.elements()) f(i, shape.channel_of(i));
  }
}

template <class T>
__global__ void __launch_bounds__(kChannelThreads)
    normalize(ChannelShape shape, const Normalize<T>* rules, const T* x, const T* residual, T* y,
              Activation activation) {
  for_each_element(shape, [&](std::int64_t i, std::int64_t c) {
    T value = rules[c](x[i]);
    if (residual) value = value + residual[i];
    y[i] = activation == Activation::identity ? value : activate(activation, value);
  });
}

struct BackwardInputs {
  ChannelVector mean, rstd, gamma, sum_dy, sum_dy_xhat;
  double n;
};

// With fixed statistics dx = gamma rstd dy, whatever x is: the rule for n elements with zero sums.
template <class T>
__global__ void prepare_backward(std::int64_t channels, BackwardInputs in, NormalizeBackward<T>* rules) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kChannelThreads + threadIdx.x;
  if (c >= channels) return;
  rules[c] = NormalizeBackward<T>::prepare(in.mean.at(c), in.rstd.at(c), in.gamma.at(c),
                                           in.n > 0 ? in.sum_dy.at(c) : 0,
                                           in.n > 0 ? in.sum_dy_xhat.at(c) : 0, in.n > 0 ? in.n : 1);
}

template <class T>
__global__ void __launch_bounds__(kChannelThreads)
    normalize_backward(ChannelShape shape, const NormalizeBackward<T>* rules, const T* dy, const T* x, T* dx,
                       bool fixed) {
  for_each_element(shape, [&](std::int64_t i, std::int64_t c) {
    dx[i] = fixed ? dy[i] * rules[c].scale : rules[c](dy[i], x[i]);
  });
}

__global__ void invert_deviations(std::int64_t channels, ChannelVector mean, ChannelVector var, double eps,
                                  double* mean_out, double* rstd_out) {
  const std::int64_t c = std::int64_t{blockIdx.x} * kChannelThreads + threadIdx.x;
  if (c >= channels) return;
  mean_out[c] = mean.at(c);
  rstd_out[c] = 1 / sqrt(var.at(c) + eps);
}

// --- launches ---------------------------------------------------------------------------------

ChannelVector vector_of(const View& v) { return {v.data, v.strides[0], v.dtype == DType::f64, 0}; }
ChannelVector vector_of(const std::optional<View>& v, double otherwise) {
  return v ? vector_of(*v) : ChannelVector{nullptr, 0, false, otherwise};
}
ChannelVector vector_of(const double* values) { return {values, 1, true, 0}; }

// An input itself where it is C-contiguous, else a copy.
class Contiguous {
 public:
  Contiguous(const View& v, Stream stream) : view_(v) {
    if (v.contiguous()) return;
    view_.data = copy_.emplace(static_cast<std::size_t>(v.bytes()), stream).as<void>();
    std::int64_t stride = 1;
    for (int i = v.rank - 1; i >= 0; stride *= v.shape[i--]) view_.strides[i] = stride;
    copy(v, view_, stream);
  }
  const View& view() const { return view_; }
  template <class T>
  const T* as() const {
    return view_.as<const T>();
  }

 private:
  View view_;
  std::optional<Scratch> copy_;
};

// Partial results of all chunks, and how a batch is cut into them.
class Chunks {
 public:
  Chunks(const ChannelShape& shape, Stream stream)
      : shape_(shape), stream_(stream), memory_(2 * slots() * sizeof(double), stream) {}

  std::int64_t size() const { return shape_.planes() ? ChannelPart<1>::kChunk : ChannelPart<32>::kChunk; }
  Partial partial() const { return {memory_.as<double>(), memory_.as<double>() + slots()}; }

  // Launches `planes` or `rows` over all chunks.
  template <class Kernel, class... Args>
  void run(Kernel* planes, Kernel* rows, const Args&... args) const {
    if (shape_.elements() == 0) return;
    const std::int64_t blocks = shape_.planes()
                                    ? ChannelPart<1>::chunks(shape_) * ChannelPart<1>::groups(shape_)
                                    : ChannelPart<32>::chunks(shape_) * ChannelPart<32>::groups(shape_);
    launch(shape_.planes() ? planes : rows, blocks_for(blocks, 1), kChannelThreads, 0, stream_, shape_,
           args..., partial());
  }

 private:
  std::size_t slots() const {
    return static_cast<std::size_t>((shape_.count() + size() - 1) / size() * shape_.channels);
  }
  ChannelShape shape_;
  Stream stream_;
  Scratch memory_;
};

unsigned channel_blocks(std::int64_t channels) { return blocks_for(channels, kChannelThreads); }
unsigned merge_blocks(std::int64_t channels) { return blocks_for(channels, kMergeColumns); }
unsigned element_blocks(const ChannelShape& shape) {
  return blocks_for(shape.elements(), kChannelThreads * kPerThread);
}

template <class T>
void take_moments(const ChannelShape& shape, const T* x, const Moments<T>& out, Stream stream) {
  const Chunks chunks(shape, stream);
  chunks.run(chunk_moments<T, 1>, chunk_moments<T, 32>, x);
  launch(finish_moments<T>, merge_blocks(shape.channels), kChannelThreads, 0, stream, shape, chunks.size(),
         chunks.partial(), out);
}

template <class T>
void take_sums(const ChannelShape& shape, const T* dy, const T* x, ChannelVector mean, ChannelVector rstd,
               const Sums<T>& out, Stream stream) {
  const Chunks chunks(shape, stream);
  chunks.run(chunk_sums<T, 1>, chunk_sums<T, 32>, dy, x, mean);
  launch(finish_sums<T>, merge_blocks(shape.channels), kChannelThreads, 0, stream, shape, chunks.size(),
         chunks.partial(), rstd, out);
}

template <class T>
void apply(const cpu::BatchNormArguments& a, const View& x, ChannelVector mean, ChannelVector rstd,
           Stream stream) {
  const auto shape = ChannelShape::of(a.x, a.axis);
  if (shape.elements() == 0) return;
  const Scratch rules(static_cast<std::size_t>(shape.channels) * sizeof(Normalize<T>), stream);
  launch(prepare_normalize<T>, channel_blocks(shape.channels), kChannelThreads, 0, stream, shape.channels,
         NormalizeInputs{mean, rstd, vector_of(a.gamma, 1), vector_of(a.beta, 0)}, rules.as<Normalize<T>>());
  const Contiguous residual(a.residual ? *a.residual : View{}, stream);
  launch(normalize<T>, element_blocks(shape), kChannelThreads, 0, stream, shape, rules.as<Normalize<T>>(),
         x.as<const T>(), a.residual ? residual.as<T>() : nullptr, a.y.as<T>(), a.activation);
}

// What flows into the normalisation: dy, or dy through the activation. It is written where a result
// belongs anyway: dresidual, else dx.
View inflow(const cpu::BatchNormGradient& a, Stream stream) {
  int gradient_rule = -1;
  double parameter = 0;
  Activations::for_each([&]<template <class> class Rule>(int activation) {
    if (activation != static_cast<int>(a.activation)) return;
    if constexpr (requires { Rule<float>::parameter; }) parameter = Rule<float>::parameter.value;
    GradientRules::for_each([&]<template <class> class Gradient>(int i) {
      if (std::is_same_v<Gradient<float>, typename Rule<float>::Backward>) gradient_rule = i;
    });
  });
  if (gradient_rule >= 0) {
    const View& written = a.dresidual ? *a.dresidual : a.dx;
    gradient(gradient_rule, parameter, a.dy, *a.y, written, stream);
    return written;
  }
  if (!a.dresidual) return a.dy;
  copy(a.dy, *a.dresidual, stream);
  return *a.dresidual;
}

template <class T>
void apply_backward(const cpu::BatchNormGradient& a, const T* dy, const T* x, const BackwardInputs& in,
                    Stream stream) {
  const auto shape = ChannelShape::of(a.x, a.axis);
  if (shape.elements() == 0) return;
  const Scratch rules(static_cast<std::size_t>(shape.channels) * sizeof(NormalizeBackward<T>), stream);
  launch(prepare_backward<T>, channel_blocks(shape.channels), kChannelThreads, 0, stream, shape.channels, in,
         rules.as<NormalizeBackward<T>>());
  launch(normalize_backward<T>, element_blocks(shape), kChannelThreads, 0, stream, shape,
         rules.as<NormalizeBackward<T>>(), dy, x, a.dx.as<T>(), in.n == 0);
}

}  // namespace

void batch_norm_statistics(const View& x, int axis, const View& mean, const View& m2, Stream stream) {
  with_float_type(x.dtype, [&]<class T>(T) {
    Moments<T> out{};
    out.mean = mean.as<double>(), out.m2 = m2.as<double>();
    take_moments(ChannelShape::of(x, axis), Contiguous(x, stream).as<T>(), out, stream);
  });
}

void batch_norm_train(const BatchNormTraining& t, Stream stream) {
  const cpu::BatchNormArguments& a = t.arguments;
  with_float_type(a.x.dtype, [&]<class T>(T) {
    const Contiguous x(a.x, stream);
    Moments<T> out{};
    out.mean = t.mean.as<double>(), out.rstd = t.rstd.as<double>(), out.eps = t.eps;
    if (t.running_mean) {
      out.running_mean = t.running_mean->as<T>(), out.mean_stride = t.running_mean->strides[0];
      out.running_var = t.running_var->as<T>(), out.var_stride = t.running_var->strides[0];
      out.momentum = t.momentum;
    }
    take_moments(ChannelShape::of(a.x, a.axis), x.as<T>(), out, stream);
    apply<T>(a, x.view(), vector_of(t.mean), vector_of(t.rstd), stream);
  });
}

void batch_norm_fixed(const View& running_mean, const View& running_var, double eps, const View& mean,
                      const View& rstd, Stream stream) {
  const std::int64_t channels = mean.shape[0];
  launch(invert_deviations, channel_blocks(channels), kChannelThreads, 0, stream, channels,
         vector_of(running_mean), vector_of(running_var), eps, mean.as<double>(), rstd.as<double>());
}

void batch_norm_apply(const cpu::BatchNormArguments& a, const View& mean, const View& rstd, Stream stream) {
  with_float_type(a.x.dtype, [&]<class T>(T) {
    const Contiguous x(a.x, stream);
    apply<T>(a, x.view(), vector_of(mean), vector_of(rstd), stream);
  });
}

void batch_norm_backward(const BatchNormBackward& b, Stream stream) {
  const cpu::BatchNormGradient& a = b.arguments;
  const auto shape = ChannelShape::of(a.x, a.axis);
  const auto bytes = static_cast<std::size_t>(shape.channels) * sizeof(double);
  const Scratch sum_dy(bytes, stream), sum_dy_xhat(bytes, stream);
  with_float_type(a.x.dtype, [&]<class T>(T) {
    const Contiguous dy(inflow(a, stream), stream), x(a.x, stream);
    take_sums<T>(shape, dy.as<T>(), x.as<T>(), vector_of(b.mean), vector_of(b.rstd),
                 {sum_dy.as<double>(), sum_dy_xhat.as<double>(), b.dbeta.as<T>(), b.dgamma.as<T>()}, stream);
    apply_backward<T>(a, dy.as<T>(), x.as<T>(),
                      {vector_of(b.mean), vector_of(b.rstd), vector_of(a.gamma, 1),
                       vector_of(sum_dy.as<double>()), vector_of(sum_dy_xhat.as<double>()), b.n},
                      stream);
  });
}

void batch_norm_backward_sums(const View& dy, const View& x, int axis, const View& mean, const View& rstd,
                              const View& sum_dy, const View& sum_dy_xhat, Stream stream) {
  with_float_type(x.dtype, [&]<class T>(T) {
    const Contiguous g(dy, stream), v(x, stream);
    take_sums<T>(ChannelShape::of(x, axis), g.as<T>(), v.as<T>(), vector_of(mean), vector_of(rstd),
                 {sum_dy.as<double>(), sum_dy_xhat.as<double>(), nullptr, nullptr}, stream);
  });
}

void batch_norm_backward_apply(const cpu::BatchNormGradient& a, const View& mean, const View& rstd,
                               const View& sum_dy, const View& sum_dy_xhat, double n, Stream stream) {
  with_float_type(a.x.dtype, [&]<class T>(T) {
    const Contiguous dy(a.dy, stream), x(a.x, stream);
    apply_backward<T>(a, dy.as<T>(), x.as<T>(),
                      {vector_of(mean), vector_of(rstd), vector_of(a.gamma, 1), vector_of(sum_dy),
                       vector_of(sum_dy_xhat), n},
                      stream);
  });
}

}  // namespace thalweg::cuda
