// Convolutions as sums of products over runs of a window of the image: a register tile's rows are pixels or
// images, its columns outputs, and its K the taps and their channels.
#include <cstddef>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_correlation.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

constexpr double kBlockBytes = 384 << 10;  // of a block's window and results: they stay in L2
constexpr std::int64_t kTasksPerThread = 4;
constexpr double kWorthwhileShare = 0.96;  // of taps that meet the image; fewer are worth skipping

template <class T>
class Correlator {
 public:
  explicit Correlator(const Correlation<T>& problem)
      : p_(problem),
        kernels_(kernels().conv.family<T>()),
        rows_(p_.taps.rows, p_.result_size.height, p_.step.height, p_.source_size.height),
        columns_(p_.taps.columns, p_.result_size.width, p_.step.width, p_.source_size.width),
        along_images_(columns_.share < kWorthwhileShare && 2 * p_.images >= kernels_.tile_rows),
        window_(p_.source, p_.groups * p_.inputs, p_.source_size, p_.step, p_.result_size, p_.taps,
                along_images_),
        direct_(p_.result.channel == 1),
        k_(p_.taps.count() * p_.inputs),
        depths_(std::max<std::int64_t>(1, ceil_div(k_, kConvDepth<T>))),
        depth_(ceil_div(k_, depths_)),
        panels_(ceil_div(p_.outputs, kernels_.tile_columns())),
        blocks_(p_.images, p_.result_size.height, bytes_per_row(), kBlockBytes,
                ceil_div(p_.images, kTasksPerThread * num_threads()),
                along_images_ ? std::min<std::int64_t>(p_.images, kernels_.tile_rows) : 1) {
    if (!along_images_) columns_.ranges = {all_of(p_.taps.columns)};
    for (std::int64_t d = 0; d < depths_; ++d)
      for (const Range& rows : rows_.ranges)
        for (const Range& columns : columns_.ranges)
          runs_.push_back(window_.runs(p_.taps, rows, columns, p_.inputs, d * depth_,
                                       std::min(k_, (d + 1) * depth_), width()));
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
    const std::int64_t columns = std::min(width(), p_.outputs - first), taps = p_.taps.count();
    const T* from = p_.weight.data + g * p_.weight.group + first * p_.weight.output;
    bool neighbours = taps > 3;
    for (std::int64_t t = 1; t < taps; ++t)
      neighbours = neighbours && p_.taps.weight(t) == p_.taps.weight(t - 1) + 1;
    if (neighbours)  // a matrix (taps, columns) for each channel
      for (std::int64_t c = 0; c < p_.inputs; ++c)
        kernels_.copy(panel + c * width(), p_.inputs * width(), 1,
                      from + p_.taps.weight(0) + c * p_.weight.input, 1, p_.weight.output, taps, columns);
    else
      for (std::int64_t t = 0; t < taps; ++t)
        kernels_.copy(panel + t * p_.inputs * width(), width(), 1, from + p_.taps.weight(t), p_.weight.input,
                      p_.weight.output, p_.inputs, columns);
  }

  // Results of one block and one panel of weights.
  void multiply_panel(const Block& block, const Place& place, std::int64_t index, const T* weights,
                      const T* bias, T* buffer) const {
    const std::int64_t g = index / panels_, first = index % panels_ * width();
    const std::int64_t channel = g * p_.outputs + first;
    const std::int64_t row = direct_ ? p_.result.row : p_.result_size.width * width();
    const std::int64_t image = direct_ ? p_.result.image : block.rows * row;
    T* const results = direct_ ? p_.result.at(block.image, block.row, 0) + channel : buffer;
    ConvTile<T> tile;
    tile.b_row = width();
    tile.columns = static_cast<int>(std::min(width(), p_.outputs - first));
    for (std::int64_t d = 0; d < depths_; ++d) {
      tile.b = weights + d * depth_ * width();
      tile.accumulate = d > 0;
      const T* const finish = bias ? bias + channel : nullptr;
      for (std::int64_t i = 0; i < block.rows; ++i) {
        const std::size_t runs = (d * rows_.ranges.size() + rows_.of[block.row + i]) * columns_.ranges.size();
        tile.a = place.data + i * p_.step.height * place.row + g * p_.inputs;
        tile.c = results + i * row;
        if (along_images_)
          multiply_images(tile, block.images, place, image, runs, d == depths_ - 1, finish);
        else
          for (std::int64_t n = 0; n < block.images; ++n, tile.a += place.image, tile.c += image)
            multiply_pixels(tile, place, runs, d == depths_ - 1, finish);
      }
    }
    if (!direct_) store_panel(block, channel, tile.columns, buffer);
  }

  // One row of an image: a tile's rows are pixels. Taps that would miss the image read zeros.
  void multiply_pixels(ConvTile<T> tile, const Place& place, std::size_t runs, bool last,
                       const T* bias) const {
    tile.a_step = p_.step.width * place.column;
    tile.c_row = direct_ ? p_.result.column : width();
    multiply_rows(tile, p_.result_size.width, runs_[runs], last, bias);
  }

  // One row of some images: a tile's rows are images, so that no pixel computes more than it sees.
  void multiply_images(ConvTile<T> tile, std::int64_t images, const Place& place, std::int64_t image,
                       std::size_t runs, bool last, const T* bias) const {
    const std::int64_t column = direct_ ? p_.result.column : width();
    tile.a_step = place.image;
    tile.c_row = image;
    for (std::int64_t j = 0; j < p_.result_size.width; ++j) {
      multiply_rows(tile, images, runs_[runs + columns_.of[j]], last, bias);
      tile.a += p_.step.width * place.column;
      tile.c += column;
    }
  }

  // In tiles of nearly equal size.
  void multiply_rows(ConvTile<T> tile, std::int64_t count, const std::vector<ConvRun>& runs, bool last,
                     const T* bias) const {
    const std::int64_t tiles = ceil_div(count, kernels_.tile_rows);
    tile.runs = runs.data();
    tile.run_count = static_cast<std::int64_t>(runs.size());
    for (std::int64_t t = 0; t < tiles; ++t) {
      const std::int64_t rows = part_begin(count, tiles, t + 1) - part_begin(count, tiles, t);
      if (!runs.empty() || !tile.accumulate)
        kernels_.tiles[kernels_.index(rows, tile.columns, kernels_.vector)](tile);
      if (last && (bias || p_.activation != Activation::identity))
        kernels().gemm.template family<T>().finish(tile.c, tile.c_row, static_cast<int>(rows), tile.columns,
                                                   bias, p_.activation);
      tile.a += rows * tile.a_step;
      tile.c += rows * tile.c_row;
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
  const Classes rows_;
  Classes columns_;
  const bool along_images_;  // a tile's rows are images, else neighbouring pixels
  const Windows<T> window_;
  const bool direct_;  // a pixel's results are neighbours
  const std::int64_t k_, depths_, depth_, panels_;
  const Blocks blocks_;
  std::vector<std::vector<ConvRun>> runs_;  // of each block of K, class of rows and class of columns
  GemmWorkspace* workspace_ = nullptr;
};

}  // namespace

template <class T>
void correlate_by_runs(const Correlation<T>& problem) {
  Correlator<T>(problem).run();
}
template void correlate_by_runs(const Correlation<float>&);
template void correlate_by_runs(const Correlation<double>&);

}  // namespace thalweg
