#include "cpu/norm.h"

#include <algorithm>
#include <cmath>

#include "base/scratch.h"
#include "cpu/contiguous.h"
#include "cpu/norm_tiles.h"
#include "rules/norm.h"

namespace thalweg::cpu {
namespace {

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

template <class T>
class Applier {
 public:
  explicit Applier(const BatchNormArguments& a)
      : a_(a),
        relu_(a.activation == Activation::relu),
        activation_(relu_ ? Activation::identity : a.activation),
        residual_(a.residual ? *a.residual : View{}),
        constants_(3 * a.x.shape[a.axis]) {}

  void run(const Channels& channels, ChannelRange range, const T* x, const double* mean, const double* rstd) {
    T *center = constants_.get(), *scale = center + channels.size(), *shift = scale + channels.size();
    for (std::int64_t c = range.begin; c < range.end; ++c) {
      const auto rule = Normalize<T>::prepare(mean[c], rstd[c], channel_value<T>(a_.gamma, c, 1),
                                              channel_value<T>(a_.beta, c, 0));
      center[c] = rule.center, scale[c] = rule.scale, shift[c] = rule.shift;
    }
    const T* residual = a_.residual ? residual_.template as<T>() : nullptr;
    const auto apply = kernels().norm.loops<T>(channels.planes()).apply;
    channels.for_tiles(
        range,
        [&](std::int64_t t, ChannelRange part) {
          const auto [offset, runs] = channels.tile(t, part);
          const NormalizeConstants<T> constants{center + part.begin, scale + part.begin, shift + part.begin};
          const auto write = [&, from = offset](std::int64_t at, Runs piece, T* y) {
            apply(x + from + at, residual ? residual + from + at : nullptr, y, piece, constants, relu_);
            if (activation_.forward)
              for_stretches(piece, [&](std::int64_t i, std::int64_t n) {
                activation_.forward(y + i, y + i, n, activation_.parameter);
              });
          };
          write_runs(runs, a_.y.as<T>() + offset,
                     writing_of(a_.y, channels, runs, activation_.forward != nullptr), write);
        },
        Channels::kLastFirst);
  }

 private:
  const BatchNormArguments& a_;
  const bool relu_;
  const ActivationLoops<T> activation_;  // as a pass of its own
  const Contiguous residual_;
  const Scratch<T> constants_;
};

template <class T>
Inflow<T> at(Inflow<T> inflow, std::int64_t offset) {
  return {inflow.dy + offset, inflow.y ? inflow.y + offset : nullptr};
}

template <class T>
void backward_sums(const Channels& channels, ChannelRange range, Inflow<T> inflow, const T* x,
                   const double* mean, const double* rstd, double* sum_dy, double* sum_dy_xhat) {
  const auto& loops = kernels().norm.loops<T>(channels.planes());
  merge_tiles(
      channels, range, sum_dy, sum_dy_xhat,
      [&](Channels::Tile tile, ChannelRange part, double* tile_dy, double* tile_dy_x) {
        loops.sums(at(inflow, tile.offset), x + tile.offset, tile.runs, mean + part.begin, tile_dy,
                   tile_dy_x);
      },
      [&](double* dy_a, double* dy_x_a, std::int64_t, const double* dy_b, const double* dy_x_b, std::int64_t,
          std::int64_t) {
        for (std::int64_t c = 0; c < range.size(); ++c) dy_a[c] += dy_b[c], dy_x_a[c] += dy_x_b[c];
      });
  for (std::int64_t c = range.begin; c < range.end; ++c) sum_dy_xhat[c] *= rstd[c];
}

// The inflow of a gradient. ReLU goes along with the loops; another activation's gradient is a pass of its
// own, into dx, which also serves fixed statistics.
template <class T>
class InflowSource {
 public:
  InflowSource(const BatchNormGradient& a, bool fixed)
      : fused_(a.activation == Activation::relu && !fixed),
        activation_(fused_ ? Activation::identity : a.activation),
        dy_(a.dy),
        y_(a.y ? *a.y : View{}),
        written_(activation_.backward ? a.dx.as<T>() : nullptr) {}

  Inflow<T> data() const {
    return {written_ ? written_ : dy_.template as<T>(), fused_ ? y_.template as<T>() : nullptr};
  }

  void prepare(const Channels& channels, ChannelRange range) const {
    if (!written_) return;
    const T *dy = dy_.template as<T>(), *y = y_.template as<T>();
    channels.for_tiles(range, [&](std::int64_t t, ChannelRange part) {
      const auto [offset, runs] = channels.tile(t, part);
      for_stretches(runs, [&, base = offset](std::int64_t from, std::int64_t n) {
        const std::int64_t i = base + from;
        activation_.backward(dy + i, y + i, written_ + i, n, activation_.parameter);
      });
    });
  }

 private:
  const bool fused_;
  const ActivationLoops<T> activation_;
  const Contiguous dy_, y_;
  T* written_;
};

template <class T>
class BackwardApplier {
 public:
  explicit BackwardApplier(const BatchNormGradient& a) : a_(a), constants_(4 * a.x.shape[a.axis]) {}

  void run(const Channels& channels, ChannelRange range, Inflow<T> inflow, const T* x, const double* mean,
           const double* rstd, const double* sum_dy, const double* sum_dy_xhat, double n) {
    T *center = constants_.get(), *scale = center + channels.size();
    T *slope = scale + channels.size(), *offset = slope + channels.size();
    for (std::int64_t c = range.begin; c < range.end; ++c) {
      const double gamma = channel_value<T>(a_.gamma, c, 1);
      const auto rule = NormalizeBackward<T>::prepare(mean[c], rstd[c], gamma, sum_dy[c], sum_dy_xhat[c], n);
      center[c] = n > 0 ? rule.center : T(0), scale[c] = rule.scale;
      slope[c] = rule.slope, offset[c] = n > 0 ? rule.offset : T(0);
    }
    const auto& loops = kernels().norm.loops<T>(channels.planes());
    T *dx = a_.dx.as<T>(), *dresidual = a_.dresidual ? a_.dresidual->as<T>() : nullptr;
    channels.for_tiles(
        range,
        [&](std::int64_t t, ChannelRange part) {
          const auto [from, runs] = channels.tile(t, part);
          const std::int64_t c = part.begin;
          T* inflow_out = dresidual ? dresidual + from : nullptr;
          const NormalizeBackwardConstants<T> constants{center + c, scale + c, slope + c, offset + c};
          const auto write = [&, first = from](std::int64_t i, Runs piece, T* target) {
            loops.backward(at(inflow, first + i), x + first + i, target,
                           inflow_out ? inflow_out + i : nullptr, piece, constants);
          };
          if (n > 0) return write_runs(runs, dx + from, writing_of(a_.dx, channels, runs, false), write);
          if (inflow_out)
            for_stretches(runs, [&, source = inflow.dy + from](std::int64_t i, std::int64_t count) {
              std::copy_n(source + i, count, inflow_out + i);
            });
          // dx = gamma rstd dy, whatever x is
          loops.apply(inflow.dy + from, nullptr, dx + from, runs, {center + c, scale + c, offset + c}, false);
        },
        Channels::kLastFirst);
  }

 private:
  const BatchNormGradient& a_;
  const Scratch<T> constants_;
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
    const Contiguous inflow(dy);
    backward_sums<T>(channels, channels.all(), {inflow.as<T>(), nullptr}, Contiguous(x).as<T>(), mean, rstd,
                     sum_dy, sum_dy_xhat);
  });
}

void batch_norm_backward_apply(const BatchNormGradient& a, const double* mean, const double* rstd,
                               const double* sum_dy, const double* sum_dy_xhat, double n) {
  with_float_type(a.x.dtype, [&]<class T>(T) {
    const Channels channels(a.x, a.axis);
    const InflowSource<T> inflow(a, n <= 0);
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
    const InflowSource<T> inflow(a, n <= 0);
    BackwardApplier<T> applier(a);
    channels.for_groups([&](ChannelRange range) {
      inflow.prepare(channels, range);
      backward_sums(channels, range, inflow.data(), x.as<T>(), mean, rstd, sum_dy, sum_dy_xhat);
      applier.run(channels, range, inflow.data(), x.as<T>(), mean, rstd, sum_dy, sum_dy_xhat, n);
    });
  });
}

}  // namespace thalweg::cpu
