#include "cpu/norm.h"

#include <cmath>
#include <vector>

#include "base/tree.h"
#include "cpu/channels.h"
#include "cpu/contiguous.h"
#include "rules/norm.h"

namespace thalweg::cpu {
namespace {

constexpr std::int64_t kChunk = 4096;  // elements between a loop and the activation that follows it

// Two partial results per tile and channel, merged pairwise over the tiles into `first` and `second`.
// compute(tile, range, first, second); merge(first_a, second_a, tile_a, first_b, second_b, tile_b, end_b).
template <class Compute, class Merge>
void merge_tiles(const Channels& channels, ChannelRange range, double* first, double* second,
                 const Compute& compute, const Merge& merge) {
  const std::int64_t tiles = channels.tiles(), width = range.size();
  if (tiles == 0) {
    std::fill(first + range.begin, first + range.end, 0.0);
    std::fill(second + range.begin, second + range.end, 0.0);
    return;
  }
  std::vector<double> partial(static_cast<std::size_t>(tiles > 1 ? 2 * tiles * width : 0));
  const auto slot = [&](double* result, std::int64_t half, std::int64_t t) {
    return tiles == 1 ? result + range.begin : partial.data() + (half * tiles + t) * width;
  };
  channels.for_tiles(range, [&](std::int64_t t, ChannelRange part) {
    const std::int64_t c = part.begin - range.begin;
    compute(channels.tile(t, part), part, slot(first, 0, t) + c, slot(second, 1, t) + c);
  });
  for (std::int64_t stride = 1; stride < tiles; stride *= 2)
    for (std::int64_t t = 0; t + stride < tiles; t += 2 * stride)
      merge(slot(first, 0, t), slot(second, 1, t), t, slot(first, 0, t + stride), slot(second, 1, t + stride),
            t + stride, std::min(t + 2 * stride, tiles));
  if (tiles == 1) return;
  std::copy_n(slot(first, 0, 0), width, first + range.begin);
  std::copy_n(slot(second, 1, 0), width, second + range.begin);
}

template <class T>
void statistics(const Channels& channels, ChannelRange range, const T* x, double* mean, double* m2) {
  const auto& loops = kernels().norm.loops<T>(channels.planes());
  merge_tiles(
      channels, range, mean, m2,
      [&](Channels::Tile tile, ChannelRange, double* tile_mean, double* tile_m2) {
        loops.moments(x + tile.offset, tile.runs, tile_mean, tile_m2);
      },
      [&](double* mean_a, double* m2_a, std::int64_t a, const double* mean_b, const double* m2_b,
          std::int64_t b, std::int64_t end) {
        kernels().norm.merge_moments(mean_a, m2_a, channels.elements(a, b), mean_b, m2_b,
                                     channels.elements(b, end), range.size());
      });
}

// A channel vector of the caller, or a constant where there is none.
template <class T>
double channel_value(const std::optional<View>& v, std::int64_t c, double otherwise) {
  return v ? static_cast<double>(v->as<const T>()[c * v->strides[0]]) : otherwise;
}

// f(offset, elements) over the contiguous stretches of some runs.
template <class F>
void for_stretches(Runs runs, const F& f) {
  if (runs.stride == runs.length) return f(std::int64_t{0}, runs.count * runs.length);
  for (std::int64_t r = 0; r < runs.count; ++r) f(r * runs.stride, runs.length);
}

template <class T>
class Applier {
 public:
  explicit Applier(const BatchNormArguments& a)
      : a_(a),
        activation_(a.activation),
        residual_(a.residual ? *a.residual : View{}),
        constants_(static_cast<std::size_t>(3 * a.x.shape[a.axis])) {}

  void run(const Channels& channels, ChannelRange range, const T* x, const double* mean, const double* rstd) {
    T *center = constants_.data(), *scale = center + channels.size(), *shift = scale + channels.size();
    for (std::int64_t c = range.begin; c < range.end; ++c) {
      const auto rule = Normalize<T>::prepare(mean[c], rstd[c], channel_value<T>(a_.gamma, c, 1),
                                              channel_value<T>(a_.beta, c, 0));
      center[c] = rule.center, scale[c] = rule.scale, shift[c] = rule.shift;
    }
    const T* residual = a_.residual ? residual_.template as<T>() : nullptr;
    const auto apply = kernels().norm.loops<T>(channels.planes()).apply;
    channels.for_tiles(range, [&](std::int64_t t, ChannelRange part) {
      auto [offset, runs] = channels.tile(t, part);
      const std::int64_t last = runs.count, step = std::max<std::int64_t>(1, kChunk / runs.length);
      for (std::int64_t r = 0; r < last; r += step, offset += step * runs.stride) {
        runs.count = std::min(step, last - r);
        T* y = a_.y.as<T>() + offset;
        apply(x + offset, residual ? residual + offset : nullptr, y, runs,
              {center + part.begin, scale + part.begin, shift + part.begin});
        if (activation_.forward)
          for_stretches(runs, [&](std::int64_t at, std::int64_t n) {
            activation_.forward(y + at, y + at, n, activation_.parameter);
          });
      }
    });
  }

 private:
  const BatchNormArguments& a_;
  const ActivationLoops<T> activation_;
  const Contiguous residual_;
  std::vector<T> constants_;
};

template <class T>
void backward_sums(const Channels& channels, ChannelRange range, const T* dy, const T* x, const double* mean,
                   const double* rstd, double* sum_dy, double* sum_dy_xhat) {
  const auto& loops = kernels().norm.loops<T>(channels.planes());
  merge_tiles(
      channels, range, sum_dy, sum_dy_xhat,
      [&](Channels::Tile tile, ChannelRange part, double* tile_dy, double* tile_dy_x) {
        loops.sums(dy + tile.offset, x + tile.offset, tile.runs, mean + part.begin, tile_dy, tile_dy_x);
      },
      [&](double* dy_a, double* dy_x_a, std::int64_t, const double* dy_b, const double* dy_x_b, std::int64_t,
          std::int64_t) {
        for (std::int64_t c = 0; c < range.size(); ++c) dy_a[c] += dy_b[c], dy_x_a[c] += dy_x_b[c];
      });
  for (std::int64_t c = range.begin; c < range.end; ++c) sum_dy_xhat[c] *= rstd[c];
}

// What flows into the normalisation: dy itself, or dy through the activation, which is also the
// gradient of the residual. It is written where a result belongs anyway: dresidual, else dx.
template <class T>
class Inflow {
 public:
  explicit Inflow(const BatchNormGradient& a)
      : activation_(a.activation),
        dy_(a.dy),
        y_(a.y ? *a.y : View{}),
        written_(a.dresidual            ? a.dresidual->as<T>()
                 : activation_.backward ? a.dx.as<T>()
                                        : nullptr) {}

  const T* data() const { return written_ ? written_ : dy_.template as<T>(); }

  void prepare(const Channels& channels, ChannelRange range) const {
    if (!written_) return;
    const T *dy = dy_.template as<T>(), *y = y_.template as<T>();
    const auto copy = elementwise_loops<T>().unary[index_of<UnaryRules, Copy>()];
    channels.for_tiles(range, [&](std::int64_t t, ChannelRange part) {
      const auto [offset, runs] = channels.tile(t, part);
      for_stretches(runs, [&, base = offset](std::int64_t at, std::int64_t n) {
        const std::int64_t i = base + at;
        if (activation_.backward)
          activation_.backward(dy + i, y + i, written_ + i, n, activation_.parameter);
        else
          copy(dy + i, written_ + i, n, 0);
      });
    });
  }

 private:
  const ActivationLoops<T> activation_;
  const Contiguous dy_, y_;
  T* written_;
};

template <class T>
class BackwardApplier {
 public:
  explicit BackwardApplier(const BatchNormGradient& a)
      : a_(a), constants_(static_cast<std::size_t>(4 * a.x.shape[a.axis])) {}

  void run(const Channels& channels, ChannelRange range, const T* dy, const T* x, const double* mean,
           const double* rstd, const double* sum_dy, const double* sum_dy_xhat, double n) {
    T *center = constants_.data(), *scale = center + channels.size();
    T *slope = scale + channels.size(), *offset = slope + channels.size();
    for (std::int64_t c = range.begin; c < range.end; ++c) {
      const double gamma = channel_value<T>(a_.gamma, c, 1);
      const auto rule = NormalizeBackward<T>::prepare(mean[c], rstd[c], gamma, sum_dy[c], sum_dy_xhat[c], n);
      center[c] = n > 0 ? rule.center : T(0), scale[c] = rule.scale;
      slope[c] = rule.slope, offset[c] = n > 0 ? rule.offset : T(0);
    }
    const auto& loops = kernels().norm.loops<T>(channels.planes());
    T* dx = a_.dx.as<T>();
    channels.for_tiles(range, [&](std::int64_t t, ChannelRange part) {
      const auto [at, runs] = channels.tile(t, part);
      const std::int64_t c = part.begin;
      if (n > 0)
        loops.backward(dy + at, x + at, dx + at, runs, {center + c, scale + c, slope + c, offset + c});
      else  // dx = gamma rstd dy, whatever x is
        loops.apply(dy + at, nullptr, dx + at, runs, {center + c, scale + c, offset + c});
    });
  }

 private:
  const BatchNormGradient& a_;
  std::vector<T> constants_;
};

}  // namespace

void batch_norm_statistics(const View& x, int axis, double* mean, double* m2) {
  with_float_type(x.dtype, [&]<class T>(T) {
    const Channels channels(x, axis);
    statistics(channels, channels.all(), Contiguous(x).as<T>(), mean, m2);
  });
}

void batch_norm_apply(const BatchNormArguments& a, const double* mean, const double* rstd) {
  with_float_type(a.x.dtype, [&]<class T>(T) {
    const Channels channels(a.x, a.axis);
    Applier<T>(a).run(channels, channels.all(), Contiguous(a.x).as<T>(), mean, rstd);
  });
}

void batch_norm_train(const BatchNormArguments& a, double eps, double* mean, double* m2, double* rstd) {
  with_float_type(a.x.dtype, [&]<class T>(T) {
    const Channels channels(a.x, a.axis);
    const Contiguous x(a.x);
    Applier<T> applier(a);
    const double n = static_cast<double>(std::max<std::int64_t>(1, channels.count()));
    channels.for_groups([&](ChannelRange range) {
      statistics(channels, range, x.as<T>(), mean, m2);
      for (std::int64_t c = range.begin; c < range.end; ++c) rstd[c] = 1 / std::sqrt(m2[c] / n + eps);
      applier.run(channels, range, x.as<T>(), mean, rstd);
    });
  });
}

void batch_norm_backward_sums(const View& dy, const View& x, int axis, const double* mean, const double* rstd,
                              double* sum_dy, double* sum_dy_xhat) {
  with_float_type(x.dtype, [&]<class T>(T) {
    const Channels channels(x, axis);
    backward_sums(channels, channels.all(), Contiguous(dy).as<T>(), Contiguous(x).as<T>(), mean, rstd, sum_dy,
                  sum_dy_xhat);
  });
}

void batch_norm_backward_apply(const BatchNormGradient& a, const double* mean, const double* rstd,
                               const double* sum_dy, const double* sum_dy_xhat, double n) {
  with_float_type(a.x.dtype, [&]<class T>(T) {
    const Channels channels(a.x, a.axis);
    const Inflow<T> inflow(a);
    inflow.prepare(channels, channels.all());
    BackwardApplier<T>(a).run(channels, channels.all(), inflow.data(), Contiguous(a.x).as<T>(), mean, rstd,
                              sum_dy, sum_dy_xhat, n);
  });
}

void batch_norm_backward(const BatchNormGradient& a, const double* mean, const double* rstd, double n,
                         double* sum_dy, double* sum_dy_xhat) {
  with_float_type(a.x.dtype, [&]<class T>(T) {
    const Channels channels(a.x, a.axis);
    const Contiguous x(a.x);
    const Inflow<T> inflow(a);
    BackwardApplier<T> applier(a);
    channels.for_groups([&](ChannelRange range) {
      inflow.prepare(channels, range);
      backward_sums(channels, range, inflow.data(), x.as<T>(), mean, rstd, sum_dy, sum_dy_xhat);
      applier.run(channels, range, inflow.data(), x.as<T>(), mean, rstd, sum_dy, sum_dy_xhat, n);
    });
  });
}

}  // namespace thalweg::cpu
