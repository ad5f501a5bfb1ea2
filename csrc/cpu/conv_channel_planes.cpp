// Depthwise convolutions at step 1 of images whose rows are contiguous: a vector holds pixels of a row.
#include <cstddef>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_correlation.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

constexpr std::int64_t kTaskElements = 1 << 14;

// What a plane's results see of it along one axis.
struct Seen {
  std::int64_t first = 0, size = 0;    // from the first offset to the last result's last
  std::int64_t inside = 0, count = 0;  // the part that is not padding

  Seen(const std::vector<AxisTap>& taps, std::int64_t results, std::int64_t source) {
    const auto [low, high] = std::minmax(taps.front().offset, taps.back().offset);
    first = low;
    size = results + high - low;
    inside = std::clamp<std::int64_t>(-first, 0, size);
    count = std::clamp<std::int64_t>(source - first, inside, size) - inside;
  }
};

template <class T>
class ChannelPlanes {
 public:
  explicit ChannelPlanes(const Correlation<T>& problem)
      : p_(problem),
        kernels_(kernels().conv.family<T>()),
        rows_(p_.taps.rows, p_.result_size.height, p_.source_size.height),
        columns_(p_.taps.columns, p_.result_size.width, p_.source_size.width) {
    for (const AxisTap& row : p_.taps.rows)
      for (const AxisTap& column : p_.taps.columns)
        offsets_.push_back((row.offset - rows_.first) * columns_.size + column.offset - columns_.first);
  }

  void run() const {
    thread_local GemmWorkspace workspace;
    GemmWorkspace* const memory = &workspace;
    const std::int64_t taps = p_.taps.count(), size = rows_.size * columns_.size;
    memory->reserve(bytes_of(p_.groups * taps), bytes_of(size), num_threads());
    T* const weights = reinterpret_cast<T*>(memory->shared());
    for (std::int64_t g = 0; g < p_.groups; ++g)
      for (std::int64_t t = 0; t < taps; ++t)
        weights[g * taps + t] = p_.weight.data[g * p_.weight.group + p_.taps.weight(t)];
    const std::int64_t pixels = p_.result_size.height * p_.result_size.width;
    parallel_for(p_.images * p_.groups, ceil_div(kTaskElements, pixels),
                 [&](std::int64_t begin, std::int64_t end) {
                   const GemmWorkspace::Slot slot(*memory);
                   T* const plane = reinterpret_cast<T*>(slot.data());
                   std::fill_n(plane, size, T(0));  // the padding stays
                   for (std::int64_t i = begin; i < end; ++i)
                     correlate(i / p_.groups, i % p_.groups, plane, weights + i % p_.groups * taps);
                 });
  }

 private:
  static std::size_t bytes_of(std::int64_t n) { return static_cast<std::size_t>(n) * sizeof(T); }

  void correlate(std::int64_t image, std::int64_t channel, T* plane, const T* weights) const {
    if (rows_.count > 0 && columns_.count > 0)
      kernels_.copy(plane + rows_.inside * columns_.size + columns_.inside, columns_.size, 1,
                    p_.source.at(image, rows_.first + rows_.inside, columns_.first + columns_.inside) +
                        channel * p_.source.channel,
                    p_.source.row, 1, rows_.count, columns_.count);
    T* const result = p_.result.at(image, 0, 0) + channel * p_.result.channel;
    const Extents size = p_.result_size;
    kernels_.plane({plane, columns_.size, offsets_.data(), p_.taps.count(), weights, result, p_.result.row,
                    size.height, size.width});
    if (p_.bias)
      for (std::int64_t i = 0; i < size.height; ++i)
        for (std::int64_t j = 0; j < size.width; ++j)
          result[i * p_.result.row + j] += p_.bias[channel * p_.bias_stride];
    if (p_.activation != Activation::identity)
      kernels().gemm.template family<T>().finish(result, p_.result.row, static_cast<int>(size.height),
                                                 static_cast<int>(size.width), nullptr, p_.activation);
  }

  const Correlation<T>& p_;
  const ConvFamily<T>& kernels_;
  const Seen rows_, columns_;
  std::vector<std::int64_t> offsets_;  // of all taps in a plane with its padding
};

}  // namespace

template <class T>
bool correlate_channel_planes(const Correlation<T>& c) {
  if (c.inputs != 1 || c.outputs != 1 || c.groups == 1) return false;
  if (c.taps.count() == 0 || c.taps.count() > kConvDepth<T>) return false;
  if (c.step.height != 1 || c.step.width != 1 || c.source.column != 1 || c.result.column != 1) return false;
  if (2 * c.result_size.width < kernels().conv.family<T>().vector) return false;
  ChannelPlanes<T>(c).run();
  return true;
}
template bool correlate_channel_planes(const Correlation<float>&);
template bool correlate_channel_planes(const Correlation<double>&);

}  // namespace thalweg
