#include "cpu/conv.h"

#include <cstddef>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_window.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

constexpr double kBlockBytes = 384 << 10;  // of a block's window and results: they stay in L2
constexpr std::int64_t kTasksPerThread = 4;

// result[n, i, j, g, o] = activation(bias[g, o] + sum over taps t and channels c of
//   source[n, i * step + t.row, j * step + t.column, g, c] * weight[g, o, c, t])
// where the source is 0 outside of its image.
template <class T>
struct Correlation {
  struct Weight {
    const T* data;
    std::int64_t group, output, input;  // strides
  };
  std::int64_t images, groups, inputs, outputs;  // channels of a group
  Extents source_size, result_size, step;
  std::vector<Tap> taps;
  Images<const T> source;
  Weight weight;
  Images<T> result;
  const T* bias = nullptr;
  std::int64_t bias_stride = 0;
  Activation activation = Activation::identity;
};

template <class T>
class Correlator {
 public:
  explicit Correlator(const Correlation<T>& problem)
      : p_(problem),
        kernels_(kernels().conv.family<T>()),
        window_(p_.source, p_.groups * p_.inputs, p_.source_size, p_.step, p_.result_size, p_.taps),
        direct_(p_.result.channel == 1),
        k_(static_cast<std::int64_t>(p_.taps.size()) * p_.inputs),
        depths_(std::max<std::int64_t>(1, ceil_div(k_, kConvDepth<T>))),
        depth_(ceil_div(k_, depths_)),
        panels_(ceil_div(p_.outputs, kernels_.tile_columns())),
        blocks_(p_.images, p_.result_size.height, bytes_per_row(), kBlockBytes,
                ceil_div(p_.images, kTasksPerThread * num_threads())) {
    for (std::int64_t d = 0; d < depths_; ++d)
      runs_.push_back(window_.runs(p_.taps, p_.inputs, d * depth_, std::min(k_, (d + 1) * depth_)));
  }

  void run() {
    thread_local GemmWorkspace workspace;
    workspace_ = &workspace;
    const std::int64_t all_panels = p_.groups * panels_, bias_size = p_.bias ? p_.groups * p_.outputs : 0;
    const std::int64_t weight_size = all_panels * panel_elements();
    const auto bytes = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(T); };
    const std::int64_t window_size = round_up(window_.elements(blocks_.most_images(), blocks_.most_rows()));
    const std::int64_t result_size =
        direct_ ? 0 : blocks_.most_images() * blocks_.most_rows() * p_.result_size.width * width();
    workspace.reserve(bytes(weight_size + bias_size), bytes(window_size + result_size), num_threads());
    T* const weights = reinterpret_cast<T*>(workspace.shared());
    T* const bias = weights + weight_size;
    for (std::int64_t o = 0; o < bias_size; ++o) bias[o] = p_.bias[o * p_.bias_stride];
    parallel_for(all_panels, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) pack_panel(i, weights + i * panel_elements());
    });
    // A thread that takes several panels copies its window once.
    const std::int64_t shares = std::clamp<std::int64_t>(
        ceil_div(kTasksPerThread * num_threads(), std::max<std::int64_t>(1, blocks_.count())), 1, all_panels);
    parallel_for(blocks_.count() * shares, 1, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(*workspace_);
      T* const buffer = reinterpret_cast<T*>(slot.data());
      for (std::int64_t task = begin; task < end; ++task) {
        const Block block = blocks_.at(task / shares);
        const auto place = window_.place(block, buffer, kernels_);
        for (std::int64_t i = part_begin(all_panels, shares, task % shares),
                          last = part_begin(all_panels, shares, task % shares + 1);
             i < last; ++i)
          multiply_panel(block, place, i, weights + i * panel_elements(), bias_size ? bias : nullptr,
                         buffer + window_size);
      }
    });
  }

 private:
  using Place = typename Windows<T>::Place;

  static std::int64_t round_up(std::int64_t n) { return ceil_div(n, 64) * 64; }
  std::int64_t width() const { return kernels_.tile_columns(); }
  std::int64_t panel_elements() const { return k_ * width(); }

  double bytes_per_row() const {
    const std::int64_t result = direct_ ? 0 : p_.result_size.width * width();
    return static_cast<double>(sizeof(T)) *
           static_cast<double>(p_.step.height * window_.row_elements() + result);
  }

  // Columns of outputs first … of group g, k by k.
  void pack_panel(std::int64_t index, T* panel) const {
    const std::int64_t g = index / panels_, first = index % panels_ * width();
    const std::int64_t columns = std::min(width(), p_.outputs - first);
    const T* from = p_.weight.data + g * p_.weight.group + first * p_.weight.output;
    const auto taps = static_cast<std::int64_t>(p_.taps.size());
    const std::int64_t tap_step = taps > 1 ? p_.taps[1].weight - p_.taps[0].weight : 0;
    bool regular = taps > 3;
    for (std::int64_t t = 1; t < taps; ++t)
      regular = regular && p_.taps[t].weight - p_.taps[t - 1].weight == tap_step;
    if (regular && tap_step == 1)  // a matrix (taps, columns) for each channel
      for (std::int64_t c = 0; c < p_.inputs; ++c)
        kernels_.copy(panel + c * width(), p_.inputs * width(), 1,
                      from + p_.taps[0].weight + c * p_.weight.input, tap_step, p_.weight.output, taps,
                      columns);
    else
      for (std::int64_t t = 0; t < taps; ++t)
        kernels_.copy(panel + t * p_.inputs * width(), width(), 1, from + p_.taps[t].weight, p_.weight.input,
                      p_.weight.output, p_.inputs, columns);
  }

  // Results of one block and one panel of weights.
  void multiply_panel(const Block& block, const Place& place, std::int64_t index, const T* weights,
                      const T* bias, T* buffer) const {
    const std::int64_t g = index / panels_, first = index % panels_ * width();
    const auto columns = static_cast<int>(std::min(width(), p_.outputs - first));
    const std::int64_t channel = g * p_.outputs + first;
    for (std::int64_t d = 0; d < depths_; ++d) {
      ConvTile<T> tile;
      tile.a_step = p_.step.width * place.column;
      tile.runs = runs_[d].data();
      tile.run_count = static_cast<std::int64_t>(runs_[d].size());
      tile.b = weights + d * depth_ * width();
      tile.b_row = width();
      tile.c_row = direct_ ? p_.result.column : width();
      tile.columns = columns;
      tile.accumulate = d > 0;
      const bool last = d == depths_ - 1;
      for (std::int64_t n = 0; n < block.images; ++n)
        for (std::int64_t i = 0; i < block.rows; ++i) {
          const T* a = place.data + n * place.image + i * p_.step.height * place.row + g * p_.inputs;
          T* c = direct_ ? p_.result.at(block.image + n, block.row + i, 0) + channel
                         : buffer + (n * block.rows + i) * p_.result_size.width * width();
          multiply_row(tile, a, c, last, bias ? bias + channel : nullptr);
        }
    }
    if (!direct_) store_panel(block, channel, columns, buffer);
  }

  // One row of an image, in tiles of nearly equal size.
  void multiply_row(ConvTile<T>& tile, const T* a, T* c, bool last, const T* bias) const {
    const std::int64_t pixels = p_.result_size.width, tiles = ceil_div(pixels, kernels_.tile_rows);
    for (std::int64_t t = 0; t < tiles; ++t) {
      const std::int64_t j = part_begin(pixels, tiles, t), rows = part_begin(pixels, tiles, t + 1) - j;
      tile.a = a + j * tile.a_step;
      tile.c = c + j * tile.c_row;
      kernels_.tiles[kernels_.index(rows, tile.columns, kernels_.vector)](tile);
      if (last && (bias || p_.activation != Activation::identity))
        kernels().gemm.template family<T>().finish(tile.c, tile.c_row, static_cast<int>(rows), tile.columns,
                                                   bias, p_.activation);
    }
  }

  // buffer (images, rows, columns of the result, width()) to where results lie.
  void store_panel(const Block& block, std::int64_t channel, std::int64_t columns, const T* buffer) const {
    const std::int64_t pixels = p_.result_size.width;
    const bool whole = p_.result.row == pixels * p_.result.column;
    const std::int64_t rows = whole ? 1 : block.rows, length = whole ? pixels * block.rows : pixels;
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < rows; ++i)
        kernels_.copy(p_.result.at(block.image + n, block.row + i, 0) + channel * p_.result.channel,
                      p_.result.channel, p_.result.column, buffer + (n * block.rows + i) * pixels * width(),
                      1, width(), columns, length);
  }

  const Correlation<T>& p_;
  const ConvFamily<T>& kernels_;
  const Windows<T> window_;
  const bool direct_;  // a pixel's results are neighbours
  const std::int64_t k_, depths_, depth_, panels_;
  const Blocks blocks_;
  std::vector<std::vector<ConvRun>> runs_;  // of each block of K
  GemmWorkspace* workspace_ = nullptr;
};

template <class T>
void correlate(const Correlation<T>& problem) {
  if (problem.images * problem.groups * problem.outputs * problem.result_size.height *
          problem.result_size.width ==
      0)
    return;
  Correlator<T>(problem).run();
}

// The taps of residue class `phase` of positions of x: there, x position step * i + phase meets y position
// i + tap.row.
std::vector<Tap> taps_of_phase(const ConvGeometry& g, const View& weight, Extents phase) {
  std::vector<Tap> taps;
  for (std::int64_t i = 0; i < g.kernel.height; ++i)
    for (std::int64_t j = 0; j < g.kernel.width; ++j) {
      const std::int64_t row = phase.height + g.padding.height - i * g.dilation.height;
      const std::int64_t column = phase.width + g.padding.width - j * g.dilation.width;
      if (row % g.stride.height || column % g.stride.width) continue;
      taps.push_back(
          {row / g.stride.height, column / g.stride.width, i * weight.strides[2] + j * weight.strides[3]});
    }
  return taps;
}

}  // namespace

std::vector<Tap> taps_of(const ConvGeometry& g, const View& weight) {
  std::vector<Tap> taps;
  for (std::int64_t i = 0; i < g.kernel.height; ++i)
    for (std::int64_t j = 0; j < g.kernel.width; ++j)
      taps.push_back({i * g.dilation.height - g.padding.height, j * g.dilation.width - g.padding.width,
                      i * weight.strides[2] + j * weight.strides[3]});
  return taps;
}

void conv2d(const ConvGeometry& g, const View& x, const View& weight, const std::optional<View>& bias,
            Activation activation, const View& y) {
  with_float_type(y.dtype, [&]<class T>(T) {
    const std::int64_t outputs = g.outputs / g.groups;
    Correlation<T> c{
        g.images,
        g.groups,
        g.channels / g.groups,
        outputs,
        g.x,
        g.y,
        g.stride,
        taps_of(g, weight),
        Images<const T>(x),
        {weight.as<const T>(), outputs * weight.strides[0], weight.strides[0], weight.strides[1]},
        Images<T>(y)};
    if (bias) c.bias = bias->as<const T>(), c.bias_stride = bias->strides[0];
    c.activation = activation;
    correlate(c);
  });
}

// Each residue class of positions modulo the stride is a convolution of dy with step 1 and the taps that
// meet it; nothing is scattered.
void conv2d_data_gradient(const ConvGeometry& g, const View& dy, const View& weight, const View& dx) {
  with_float_type(dx.dtype, [&]<class T>(T) {
    const std::int64_t outputs = g.outputs / g.groups;
    for (std::int64_t i = 0; i < std::min(g.stride.height, g.x.height); ++i)
      for (std::int64_t j = 0; j < std::min(g.stride.width, g.x.width); ++j) {
        Images<T> result(dx);
        result.data = result.at(0, i, j);
        result.row *= g.stride.height;
        result.column *= g.stride.width;
        correlate(Correlation<T>{
            g.images,
            g.groups,
            outputs,
            g.channels / g.groups,
            g.y,
            {ceil_div(g.x.height - i, g.stride.height), ceil_div(g.x.width - j, g.stride.width)},
            {1, 1},
            taps_of_phase(g, weight, {i, j}),
            Images<const T>(dy),
            {weight.as<const T>(), outputs * weight.strides[0], weight.strides[1], weight.strides[0]},
            result});
      }
  });
}

}  // namespace thalweg
