// Depthwise convolutions: a group is one channel, and a vector holds the channels of one pixel.
#include <cstddef>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_correlation.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

constexpr double kBlockBytes = 256 << 10;  // of a block's window and results
constexpr std::int64_t kTasksPerThread = 4;

template <class T>
std::size_t bytes_of(std::int64_t elements) {
  return static_cast<std::size_t>(elements) * sizeof(T);
}

// Offsets of all taps in a window.
template <class T>
std::vector<std::int64_t> offsets_of(const Taps& taps, const Windows<T>& window) {
  std::vector<std::int64_t> offsets;
  for (std::int64_t i = 0; i < all_of(taps.rows).end; ++i)
    for (std::int64_t j = 0; j < all_of(taps.columns).end; ++j)
      offsets.push_back(window.runs(taps, {i, i + 1}, {j, j + 1}, 1, 0, taps.count(), 1).front().a);
  return offsets;
}

template <class T>
class ChannelwiseCorrelator {
 public:
  explicit ChannelwiseCorrelator(const Correlation<T>& problem)
      : p_(problem),
        kernels_(kernels().conv.family<T>()),
        window_(p_.source, p_.groups, p_.source_size, p_.step, p_.result_size, p_.taps, false),
        direct_(p_.result.channel == 1),
        offsets_(offsets_of(p_.taps, window_)),
        blocks_(p_.images, p_.result_size.height,
                static_cast<double>(sizeof(T)) *
                    static_cast<double>(p_.step.height * window_.row_elements() + result_row()),
                kBlockBytes, ceil_div(p_.images, kTasksPerThread * num_threads())) {}

  void run() {
    thread_local GemmWorkspace workspace;
    GemmWorkspace* const memory = &workspace;
    const std::int64_t channels = p_.groups, weights = p_.taps.count() * channels;
    const std::int64_t window_size = window_.elements(blocks_.most_images(), blocks_.most_rows());
    memory->reserve(bytes_of<T>(weights + channels),
                    bytes_of<T>(window_size + blocks_.most_images() * blocks_.most_rows() * result_row()),
                    num_threads());
    T* const weight = reinterpret_cast<T*>(memory->shared());
    T* const bias = weight + weights;
    for (std::int64_t t = 0; t < p_.taps.count(); ++t)
      kernels_.copy(weight + t * channels, channels, 1, p_.weight.data + p_.taps.weight(t), 0,
                    p_.weight.group, 1, channels);
    for (std::int64_t c = 0; p_.bias && c < channels; ++c) bias[c] = p_.bias[c * p_.bias_stride];
    parallel_for(blocks_.count(), 1, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(*memory);
      T* const buffer = reinterpret_cast<T*>(slot.data());
      for (std::int64_t i = begin; i < end; ++i)
        correlate_block(blocks_.at(i), buffer, buffer + window_size, weight, p_.bias ? bias : nullptr);
    });
  }

 private:
  std::int64_t result_row() const { return direct_ ? 0 : p_.result_size.width * p_.groups; }

  void correlate_block(const Block& block, T* buffer, T* results, const T* weight, const T* bias) const {
    const auto place = window_.place(block, buffer, kernels_);
    ConvChannels<T> row;
    row.x_step = p_.step.width * place.column;
    row.taps = offsets_.data();
    row.tap_count = p_.taps.count();
    row.weight = weight;
    row.y_step = direct_ ? p_.result.column : p_.groups;
    row.pixels = p_.result_size.width;
    row.channels = p_.groups;
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < block.rows; ++i) {
        row.x = place.data + n * place.image + i * p_.step.height * place.row;
        row.y = direct_ ? p_.result.at(block.image + n, block.row + i, 0) : results;
        kernels_.channels(row);
        if (bias || p_.activation != Activation::identity)
          kernels().gemm.template family<T>().finish(row.y, row.y_step, static_cast<int>(row.pixels),
                                                     static_cast<int>(row.channels), bias, p_.activation);
        if (!direct_)
          kernels_.copy(p_.result.at(block.image + n, block.row + i, 0), p_.result.channel, p_.result.column,
                        results, 1, p_.groups, p_.groups, p_.result_size.width);
      }
  }

  const Correlation<T>& p_;
  const ConvFamily<T>& kernels_;
  const Windows<T> window_;
  const bool direct_;
  const std::vector<std::int64_t> offsets_;
  const Blocks blocks_;
};

// Of channels begin … end: each thread copies its own, see conv_weight.cpp.
template <class T>
class ChannelwiseWeightGradient {
 public:
  ChannelwiseWeightGradient(const ConvGeometry& geometry, const View& dy, const View& x, const View& dw,
                            Range channels)
      : g_(geometry),
        dw_(dw),
        dy_(dy),
        kernels_(kernels().conv.family<T>()),
        taps_(taps_of(geometry, dw)),
        channels_(channels),
        count_(channels.end - channels.begin),
        window_(of_channels(Images<const T>(x)), count_, g_.x, g_.stride, g_.y, taps_, false),
        offsets_(offsets_of(taps_, window_)),
        blocks_(g_.images, g_.y.height, static_cast<double>(g_.y.width), kConvDepth<T>, g_.images) {}

  std::int64_t elements() const { return taps_.count() * count_ + window_size() + dy_size(); }

  void run(T* sums) const {
    T* const window = sums + taps_.count() * count_;
    if (blocks_.count() == 0) std::fill_n(sums, taps_.count() * count_, T(0));
    for (std::int64_t i = 0; i < blocks_.count(); ++i)
      multiply(copy_block(blocks_.at(i), window, window + window_size()), sums, i > 0);
    for (std::int64_t t = 0; t < taps_.count(); ++t)
      kernels_.copy(dw_.as<T>() + taps_.weight(t) + channels_.begin * dw_.strides[0], 0, dw_.strides[0],
                    sums + t * count_, 0, 1, 1, count_);
  }

 private:
  struct Piece {
    const T *x, *dy;
    std::int64_t step;
    std::vector<ConvRun> rows;  // of y; b counts in dy
  };

  Images<const T> of_channels(Images<const T> images) const {
    images.data += channels_.begin * images.channel;
    return images;
  }

  std::int64_t images() const { return std::max<std::int64_t>(1, blocks_.most_images()); }
  std::int64_t window_size() const { return window_.elements(images(), blocks_.most_rows()); }
  std::int64_t dy_size() const { return images() * blocks_.most_rows() * g_.y.width * count_; }

  Piece copy_block(const Block& block, T* window, T* dy) const {
    const auto place = window_.place(block, window, kernels_);
    const Images<const T> from = of_channels(dy_);
    Piece piece{place.data, dy, g_.stride.width * place.column, {}};
    const std::int64_t row = g_.y.width * count_;
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < block.rows; ++i) {
        const std::int64_t at = (n * block.rows + i) * row;
        kernels_.copy(dy + at, count_, 1, from.at(block.image + n, block.row + i, 0), from.column,
                      from.channel, g_.y.width, count_);
        piece.rows.push_back({n * place.image + i * g_.stride.height * place.row, at, g_.y.width});
      }
    return piece;
  }

  void multiply(const Piece& piece, T* sums, bool accumulate) const {
    ConvChannelSums<T> s;
    s.x = piece.x;
    s.x_step = piece.step;
    s.taps = offsets_.data();
    s.tap_count = taps_.count();
    s.rows = piece.rows.data();
    s.row_count = static_cast<std::int64_t>(piece.rows.size());
    s.dy = piece.dy;
    s.dy_step = s.sums_row = s.channels = count_;
    s.sums = sums;
    s.accumulate = accumulate;
    kernels_.channel_sums(s);
  }

  const ConvGeometry& g_;
  const View& dw_;
  const Images<const T> dy_;
  const ConvFamily<T>& kernels_;
  const Taps taps_;
  const Range channels_;
  const std::int64_t count_;
  const Windows<T> window_;
  const std::vector<std::int64_t> offsets_;
  const Blocks blocks_;
};

template <class T>
void sum_channels(const ConvGeometry& geometry, const View& dy, const View& x, const View& dw) {
  thread_local GemmWorkspace workspace;
  GemmWorkspace* const memory = &workspace;
  const std::int64_t vector = kernels().conv.family<T>().vector,
                     vectors = ceil_div(geometry.channels, vector);
  const std::int64_t shares = std::min<std::int64_t>(num_threads(), vectors);
  std::vector<ChannelwiseWeightGradient<T>> parts;
  for (std::int64_t i = 0; i < shares; ++i)
    parts.emplace_back(geometry, dy, x, dw,
                       Range{part_begin(vectors, shares, i) * vector,
                             std::min(part_begin(vectors, shares, i + 1) * vector, geometry.channels)});
  std::int64_t most = 0;
  for (const ChannelwiseWeightGradient<T>& part : parts) most = std::max(most, part.elements());
  memory->reserve(0, bytes_of<T>(most), static_cast<int>(shares));
  parallel_for(shares, 1, [&](std::int64_t begin, std::int64_t end) {
    const GemmWorkspace::Slot slot(*memory);
    for (std::int64_t i = begin; i < end; ++i)
      parts[static_cast<std::size_t>(i)].run(reinterpret_cast<T*>(slot.data()));
  });
}

}  // namespace

template <class T>
bool correlate_channelwise(const Correlation<T>& problem) {
  if (problem.inputs != 1 || problem.outputs != 1 || problem.groups == 1) return false;
  if (problem.taps.count() == 0 || problem.taps.count() > kConvDepth<T>) return false;
  ChannelwiseCorrelator<T>(problem).run();
  return true;
}
template bool correlate_channelwise(const Correlation<float>&);
template bool correlate_channelwise(const Correlation<double>&);

bool channelwise_weight_gradient(const ConvGeometry& geometry, const View& dy, const View& x,
                                 const View& dw) {
  if (geometry.groups == 1 || geometry.channels != geometry.groups || geometry.outputs != geometry.groups)
    return false;
  with_float_type(dw.dtype, [&]<class T>(T) { sum_channels<T>(geometry, dy, x, dw); });
  return true;
}

}  // namespace thalweg
