// Depthwise convolutions: a group is one channel, and a vector holds the channels of one pixel.
#include <cstddef>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_correlation.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

constexpr double kBlockBytes = 256 << 10;  // of a block's window and results
constexpr double kChunkBytes = 2 << 20;    // of the blocks that are copied before they are multiplied
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

template <class T>
class ChannelwiseWeightGradient {
 public:
  ChannelwiseWeightGradient(const ConvGeometry& geometry, const View& dy, const View& x, const View& dw)
      : g_(geometry),
        dw_(dw),
        dy_(dy),
        kernels_(kernels().conv.family<T>()),
        taps_(taps_of(geometry, dw)),
        window_(Images<const T>(x), g_.channels, g_.x, g_.stride, g_.y, taps_, false),
        offsets_(offsets_of(taps_, window_)),
        blocks_(g_.images, g_.y.height, static_cast<double>(g_.y.width), kConvDepth<T>, g_.images) {}

  void run() {
    thread_local GemmWorkspace workspace;
    const std::int64_t channels = g_.channels, images = std::max<std::int64_t>(1, blocks_.most_images());
    const std::int64_t window_size = window_.elements(images, blocks_.most_rows());
    const std::int64_t size = window_size + images * blocks_.most_rows() * g_.y.width * channels;
    const std::int64_t chunk = std::clamp<std::int64_t>(
        static_cast<std::int64_t>(kChunkBytes / static_cast<double>(bytes_of<T>(size))), 1,
        std::max<std::int64_t>(1, blocks_.count()));
    const std::int64_t sums_size = taps_.count() * channels;
    workspace.reserve(bytes_of<T>(sums_size + chunk * size), 0, 0);
    T* const sums = reinterpret_cast<T*>(workspace.shared());
    if (blocks_.count() == 0) std::fill_n(sums, sums_size, T(0));
    std::vector<Piece> pieces(static_cast<std::size_t>(chunk));
    for (std::int64_t first = 0; first < blocks_.count(); first += chunk) {
      const std::int64_t count = std::min(chunk, blocks_.count() - first);
      parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i) {
          T* const to = sums + sums_size + i * size;
          pieces[i] = copy_block(blocks_.at(first + i), to, to + window_size);
        }
      });
      parallel_for(channels, kernels_.vector, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = 0; i < count; ++i)
          multiply(pieces[i], sums + begin, begin, end - begin, first + i > 0);
      });
    }
    for (std::int64_t t = 0; t < taps_.count(); ++t)
      kernels_.copy(dw_.as<T>() + taps_.weight(t), 0, dw_.strides[0], sums + t * channels, 0, 1, 1, channels);
  }

 private:
  struct Piece {
    const T *x, *dy;
    std::int64_t step;
    std::vector<ConvRun> rows;  // of y; b counts in dy
  };

  Piece copy_block(const Block& block, T* window, T* dy) const {
    const auto place = window_.place(block, window, kernels_);
    Piece piece{place.data, dy, g_.stride.width * place.column, {}};
    const std::int64_t row = g_.y.width * g_.channels;
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < block.rows; ++i) {
        const std::int64_t at = (n * block.rows + i) * row;
        kernels_.copy(dy + at, g_.channels, 1, dy_.at(block.image + n, block.row + i, 0), dy_.column,
                      dy_.channel, g_.y.width, g_.channels);
        piece.rows.push_back({n * place.image + i * g_.stride.height * place.row, at, g_.y.width});
      }
    return piece;
  }

  void multiply(const Piece& piece, T* sums, std::int64_t channel, std::int64_t channels,
                bool accumulate) const {
    ConvChannelSums<T> s;
    s.x = piece.x + channel;
    s.x_step = piece.step;
    s.taps = offsets_.data();
    s.tap_count = taps_.count();
    s.rows = piece.rows.data();
    s.row_count = static_cast<std::int64_t>(piece.rows.size());
    s.dy = piece.dy + channel;
    s.dy_step = s.sums_row = g_.channels;
    s.sums = sums;
    s.channels = channels;
    s.accumulate = accumulate;
    kernels_.channel_sums(s);
  }

  const ConvGeometry& g_;
  const View& dw_;
  const Images<const T> dy_;
  const ConvFamily<T>& kernels_;
  const Taps taps_;
  const Windows<T> window_;
  const std::vector<std::int64_t> offsets_;
  const Blocks blocks_;
};

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
  with_float_type(dw.dtype, [&]<class T>(T) { ChannelwiseWeightGradient<T>(geometry, dy, x, dw).run(); });
  return true;
}

}  // namespace thalweg
