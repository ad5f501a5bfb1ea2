// Kernels of one element: matrix products.
#include <cstddef>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_correlation.h"
#include "cpu/gemm.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

constexpr double kBlockBytes = 96 << 10;  // of a task's panels: they stay in L2 while the weights pass by
constexpr std::int64_t kTasksPerThread = 4;
constexpr double kTaskFlops = 3e5;  // a few microseconds

// The only tap falls on the image everywhere.
template <class T>
bool is_pixelwise(const Correlation<T>& c) {
  const auto inside = [](const std::vector<AxisTap>& taps, std::int64_t n, std::int64_t step,
                         std::int64_t size) {
    return taps.size() == 1 && taps[0].offset >= 0 && (n - 1) * step + taps[0].offset < size;
  };
  return inside(c.taps.rows, c.result_size.height, c.step.height, c.source_size.height) &&
         inside(c.taps.columns, c.result_size.width, c.step.width, c.source_size.width);
}

// Results in planes: a tile's rows are outputs, its columns pixels. Panels of pixels run on from image to
// image, so that small ones leave no columns idle; they are copied, as that reads each channel once and in
// order, unless a single row of tiles would use the copy.
template <class T>
class PixelPanels {
 public:
  explicit PixelPanels(const Correlation<T>& problem)
      : p_(problem),
        kernels_(kernels().conv.family<T>()),
        pixels_(p_.result_size.height * p_.result_size.width),
        source_run_(run_of(p_.source, p_.step)),
        result_run_(run_of(p_.result, {1, 1})),
        depths_(std::max<std::int64_t>(1, ceil_div(p_.inputs, kConvDepth<T>))),
        depth_(ceil_div(p_.inputs, depths_)),
        row_tiles_(ceil_div(p_.outputs, kernels_.tile_rows)),
        panels_(ceil_div(p_.images * pixels_, width())) {
    const double bytes = static_cast<double>(panel_elements() + 1) * sizeof(T);
    const auto most = std::clamp<std::int64_t>(static_cast<std::int64_t>(kBlockBytes / bytes), 1,
                                               ceil_div(panels_, kTasksPerThread * num_threads()));
    blocks_ = std::min(panels_, round_up(ceil_div(panels_, most), num_threads()));
    shares_ = std::clamp<std::int64_t>(ceil_div(2 * num_threads(), p_.groups * blocks_), 1, row_tiles_);
  }

  void run() {
    thread_local GemmWorkspace workspace;
    GemmWorkspace* const memory = &workspace;
    const auto bytes = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(T); };
    memory->reserve(bytes(p_.groups * row_tiles_ * tile_elements()),
                    bytes(kernels_.tile_rows * width() + ceil_div(panels_, blocks_) * panel_elements()),
                    num_threads());
    T* const weights = reinterpret_cast<T*>(memory->shared());
    const double flops = 2.0 * static_cast<double>(panels_ * width()) * static_cast<double>(p_.inputs + 1) *
                         static_cast<double>(p_.outputs) / static_cast<double>(blocks_ * shares_);
    const auto grain = static_cast<std::int64_t>(std::max(1.0, kTaskFlops / flops));
    parallel_for(p_.groups * row_tiles_, 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) pack_weights(i, weights + i * tile_elements());
    });
    parallel_for(p_.groups * blocks_ * shares_, grain, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(*memory);
      for (std::int64_t task = begin; task < end; ++task)
        multiply_block(task / shares_, task % shares_, weights, reinterpret_cast<T*>(slot.data()));
    });
  }

 private:
  // Where a panel of the source lies, k by k.
  struct Panel {
    const T* data;
    std::int64_t row;
  };

  std::int64_t width() const { return kernels_.tile_columns(); }
  std::int64_t panel_elements() const { return p_.inputs * width(); }
  std::int64_t tile_elements() const { return p_.inputs * kernels_.tile_rows; }

  // Pixels that follow each other at one distance.
  template <class Pixels>
  std::int64_t run_of(const Pixels& images, Extents step) const {
    const bool flat = images.row * step.height == p_.result_size.width * images.column * step.width;
    return flat || p_.result_size.height == 1 ? pixels_ : p_.result_size.width;
  }

  // Calls f(n, i, j, at, count) for the runs of a panel's pixels: count from column `at`, of which the first
  // is (i, j) of result n.
  template <class F>
  void for_runs(std::int64_t panel, std::int64_t run, const F& f) const {
    const std::int64_t first = panel * width(), end = first + columns_of(panel);
    for (std::int64_t pixel = first, count; pixel < end; pixel += count) {
      count = std::min(end - pixel, run - pixel % run);
      const std::int64_t at = pixel % pixels_, row = p_.result_size.width;
      f(pixel / pixels_, at / row, at % row, pixel - first, count);
    }
  }

  std::int64_t columns_of(std::int64_t panel) const {
    return std::min(width(), p_.images * pixels_ - panel * width());
  }

  const T* source_at(std::int64_t group, std::int64_t n, std::int64_t i, std::int64_t j) const {
    return p_.source.at(n, i * p_.step.height + p_.taps.rows[0].offset,
                        j * p_.step.width + p_.taps.columns[0].offset) +
           group * p_.inputs * p_.source.channel;
  }

  void pack_weights(std::int64_t index, T* to) const {
    const std::int64_t tile = index % row_tiles_, row = part_begin(p_.outputs, row_tiles_, tile);
    kernels_.copy(
        to, kernels_.tile_rows, 1,
        p_.weight.data + p_.taps.weight(0) + index / row_tiles_ * p_.weight.group + row * p_.weight.output,
        p_.weight.input, p_.weight.output, p_.inputs, part_begin(p_.outputs, row_tiles_, tile + 1) - row);
  }

  Panel place(std::int64_t group, std::int64_t panel, T* copy) const {
    const std::int64_t step = p_.step.width * p_.source.column;
    Panel place{copy, width()};
    for_runs(panel, source_run_, [&](auto n, auto i, auto j, auto at, auto count) {
      const T* const from = source_at(group, n, i, j);
      if (row_tiles_ == 1 && step == 1 && count == columns_of(panel))
        place = {from, p_.source.channel};
      else
        kernels_.copy(copy + at, width(), 1, from, p_.source.channel, step, p_.inputs, count);
    });
    return place;
  }

  void multiply_block(std::int64_t block, std::int64_t share, const T* weights, T* memory) const {
    const std::int64_t group = block / blocks_, first = part_begin(panels_, blocks_, block % blocks_);
    const std::int64_t last = part_begin(panels_, blocks_, block % blocks_ + 1);
    T* const copies = memory + kernels_.tile_rows * width();
    std::vector<Panel> places;
    for (std::int64_t panel = first; panel < last; ++panel)
      places.push_back(place(group, panel, copies + (panel - first) * panel_elements()));
    for (std::int64_t i = part_begin(row_tiles_, shares_, share),
                      end = part_begin(row_tiles_, shares_, share + 1);
         i < end; ++i)
      for (std::int64_t panel = first; panel < last; ++panel)
        multiply(group, i, panel, weights + (group * row_tiles_ + i) * tile_elements(), places[panel - first],
                 memory);
  }

  // A tile: into the result, if its pixels are neighbours there.
  void multiply(std::int64_t group, std::int64_t row_tile, std::int64_t panel, const T* weights,
                const Panel& place, T* buffer) const {
    const std::int64_t row = part_begin(p_.outputs, row_tiles_, row_tile);
    const std::int64_t rows = part_begin(p_.outputs, row_tiles_, row_tile + 1) - row;
    const std::int64_t channel = group * p_.outputs + row;
    const auto result_at = [&](auto n, auto i, auto j) {
      return p_.result.at(n, i, j) + channel * p_.result.channel;
    };
    ConvTile<T> tile;
    tile.a_step = kernels_.tile_rows;
    tile.b_row = place.row;
    tile.columns = static_cast<int>(columns_of(panel));
    tile.c = buffer;
    tile.c_row = width();
    for_runs(panel, result_run_, [&](auto n, auto i, auto j, auto, auto count) {
      if (p_.result.column == 1 && count == tile.columns)
        tile.c = result_at(n, i, j), tile.c_row = p_.result.channel;
    });
    for (std::int64_t d = 0; d < depths_; ++d) {
      const ConvRun run{0, 0, std::min(depth_, p_.inputs - d * depth_)};
      tile.runs = &run;
      tile.run_count = 1;
      tile.a = weights + d * depth_ * kernels_.tile_rows;
      tile.b = place.data + d * depth_ * place.row;
      tile.accumulate = d > 0;
      kernels_.column_tiles[kernels_.index(rows, tile.columns, kernels_.vector)](tile);
    }
    finish(tile, rows, channel);
    if (tile.c == buffer)
      for_runs(panel, result_run_, [&](auto n, auto i, auto j, auto at, auto count) {
        kernels_.copy(result_at(n, i, j), p_.result.channel, p_.result.column, buffer + at, width(), 1, rows,
                      count);
      });
  }

  void finish(const ConvTile<T>& tile, std::int64_t rows, std::int64_t channel) const {
    for (std::int64_t o = 0; p_.bias && o < rows; ++o) {
      const T bias = p_.bias[(channel + o) * p_.bias_stride];
      for (int j = 0; j < tile.columns; ++j) tile.c[o * tile.c_row + j] += bias;
    }
    if (p_.activation != Activation::identity)
      kernels().gemm.template family<T>().finish(tile.c, tile.c_row, static_cast<int>(rows), tile.columns,
                                                 nullptr, p_.activation);
  }

  const Correlation<T>& p_;
  const ConvFamily<T>& kernels_;
  const std::int64_t pixels_;                   // of an image
  const std::int64_t source_run_, result_run_;  // see run_of
  const std::int64_t depths_, depth_, row_tiles_, panels_;
  std::int64_t blocks_, shares_;  // of panels; of the row tiles
};

// Results in pixels: one product, or one for each image and group.
template <class T>
bool multiply_pixels(const Correlation<T>& c) {
  const Extents size = c.result_size;
  const auto flat = [&](const auto& images) {
    return size.height == 1 || images.row == size.width * images.column;
  };
  if (size.height != c.source_size.height || size.width != c.source_size.width || c.step.height != 1 ||
      c.step.width != 1 || !flat(c.source) || !flat(c.result))
    return false;
  // A single column would be summed in another order.
  if (c.outputs == 1 || (c.groups > 1 && c.bias)) return false;
  GemmProblem p;
  p.dtype = dtype_of<T>;
  p.m = size.height * size.width;
  p.n = c.outputs;
  p.k = c.inputs;
  p.batch_rank = 2;
  p.batch[0] = c.images;
  p.batch[1] = c.groups;
  p.a = {const_cast<T*>(c.source.data),
         c.source.column,
         c.source.channel,
         {c.source.image, c.inputs * c.source.channel}};
  p.b = {
      const_cast<T*>(c.weight.data + c.taps.weight(0)), c.weight.input, c.weight.output, {0, c.weight.group}};
  p.c = {c.result.data, c.result.column, c.result.channel, {c.result.image, c.outputs * c.result.channel}};
  p.bias = c.bias;
  p.bias_stride = c.bias_stride;
  p.activation = c.activation;
  if (c.groups == 1 && c.source.image == p.m * c.source.column && c.result.image == p.m * c.result.column) {
    p.m *= c.images;
    p.batch[0] = 1;
  }
  gemm(p);
  return true;
}

}  // namespace

template <class T>
bool correlate_pixelwise(const Correlation<T>& c) {
  if (!is_pixelwise(c)) return false;
  if (c.result.channel == 1) return multiply_pixels(c);
  PixelPanels<T>(c).run();
  return true;
}
template bool correlate_pixelwise(const Correlation<float>&);
template bool correlate_pixelwise(const Correlation<double>&);

}  // namespace thalweg
