#include "cpu/conv_split.h"

#include <cstddef>
#include <vector>

#include "base/half.h"
#include "base/parallel.h"
#include "cpu/conv_split_operands.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

constexpr double kBlockBytes = 384 << 10;  // of a block's window and results: they stay in L2
constexpr std::int64_t kTasksPerThread = 4;
constexpr std::int64_t kFlatPixels = 56;  // whole tiles of 14, nearly whole ones of 32

// One product: fewer channels leave too much of a slab empty. More: of AMX, whose slabs are never cut short.
constexpr std::int64_t kFewChannels = 8, kFewPartChannels = 16;
constexpr std::int64_t kSixDepth = 32;  // from here the bound of six products is the smaller one

// One-element kernels see some pixels and nothing between them: these as an image, in few long rows.
template <class T>
Correlation<T> simplified(const Correlation<T>& problem) {
  Correlation<T> c = problem;
  if (c.taps.count() != 1) return c;
  AxisTap &row = c.taps.rows[0], &column = c.taps.columns[0];
  const Extents size = c.result_size;
  if (row.offset < 0 || column.offset < 0 ||
      row.offset + (size.height - 1) * c.step.height >= c.source_size.height ||
      column.offset + (size.width - 1) * c.step.width >= c.source_size.width)
    return c;
  c.source.data = c.source.at(0, row.offset, column.offset);
  c.source.row *= c.step.height;
  c.source.column *= c.step.width;
  c.source_size = size;
  c.step = {1, 1};
  row.offset = column.offset = 0;
  if (c.source.row != size.width * c.source.column || c.result.row != size.width * c.result.column) return c;
  std::int64_t rows = 1;  // that become one
  while (rows < size.height && (size.height % rows != 0 || rows * size.width < kFlatPixels)) ++rows;
  c.source_size = c.result_size = {size.height / rows, size.width * rows};
  c.source.row *= rows;
  c.result.row *= rows;
  return c;
}

template <class T>
class SplitCorrelator {
 public:
  SplitCorrelator(const Correlation<T>& problem, int parts, bool keep_tiny)
      : p_(problem),
        kernels_(kernels().bf16),
        operands_(p_, parts),
        keep_tiny_(keep_tiny),
        multiply_(kernels_.tile(operands_.planes())),
        rows_(p_.taps.rows, p_.result_size.height, p_.step.height, p_.source_size.height),
        panels_(ceil_div(p_.outputs, kPanelColumns)),
        blocks_(p_.images, p_.result_size.height,
                operands_.bytes_per_row() + static_cast<double>(4 * p_.result_size.width * kPanelColumns),
                kBlockBytes, ceil_div(p_.images, kTasksPerThread * num_threads())) {
    operands_.set_block(blocks_.most_images(), blocks_.most_rows());
    for (std::int64_t o = 0; p_.bias && o < p_.groups * p_.outputs; ++o)
      bias_.push_back(p_.bias[o * p_.bias_stride]);
  }

  // Whether parts could represent all elements; if not, the results are to be computed otherwise.
  bool run() {
    thread_local GemmWorkspace of_thread;
    GemmWorkspace& workspace = of_thread;  // the caller's, whichever thread runs what follows
    const std::int64_t all_panels = p_.groups * panels_, panel = operands_.panel_words();
    const std::int64_t most_pixels = blocks_.most_images() * blocks_.most_rows() * p_.result_size.width;
    const std::int64_t buffers = (turns_narrow() ? 2 : 1) * most_pixels * kPanelColumns;
    workspace.reserve(
        static_cast<std::size_t>(all_panels * panel) * sizeof(std::uint16_t),
        static_cast<std::size_t>(operands_.window_words() + 2 * buffers) * sizeof(std::uint16_t),
        num_threads());
    auto* const weights = reinterpret_cast<std::uint16_t*>(workspace.shared());
    const std::int64_t shares = std::clamp<std::int64_t>(
        ceil_div(kTasksPerThread * num_threads(), std::max<std::int64_t>(1, blocks_.count())), 1, all_panels);
    std::vector<Magnitudes> of_panels(static_cast<std::size_t>(all_panels)),
        of_tasks(static_cast<std::size_t>(blocks_.count() * shares));
    parallel_for(all_panels, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        of_panels[static_cast<std::size_t>(i)] =
            operands_.pack_panel(i / panels_, i % panels_ * kPanelColumns, weights + i * panel);
    });
    parallel_for(blocks_.count() * shares, 1, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(workspace);
      const TileScope scope(kernels_);
      auto* const window = reinterpret_cast<std::uint16_t*>(slot.data());
      auto* const buffer = reinterpret_cast<float*>(window + operands_.window_words());
      for (std::int64_t task = begin; task < end; ++task) {
        const Block block = blocks_.at(task / shares);
        std::int64_t group = -1;
        for (std::int64_t i = part_begin(all_panels, shares, task % shares),
                          last = part_begin(all_panels, shares, task % shares + 1);
             i < last; ++i) {
          if (i / panels_ != group) {
            group = i / panels_;
            of_tasks[static_cast<std::size_t>(task)].merge(operands_.pack_window(block, group, window));
          }
          multiply_panel(block, i, window, weights + i * panel, buffer);
        }
      }
    });
    const std::int64_t k = std::max<std::int64_t>(1, p_.taps.count() * p_.inputs);
    return splits_safely(merged(of_tasks), merged(of_panels), k, keep_tiny_);
  }

 private:
  static Magnitudes merged(const std::vector<Magnitudes>& some) {
    Magnitudes all;
    for (const Magnitudes& each : some) all.merge(each);
    return all;
  }

  bool channels_last() const { return p_.result.channel == 1; }
  bool turns_narrow() const { return sizeof(T) == sizeof(std::uint16_t); }

  // Results of one block and one panel of weights.
  void multiply_panel(const Block& block, std::int64_t index, const std::uint16_t* window,
                      const std::uint16_t* weights, float* buffer) const {
    const std::int64_t first = index % panels_ * kPanelColumns;
    const std::int64_t channel = index / panels_ * p_.outputs + first, pixels = p_.result_size.width;
    Bf16Tile tile{};
    tile.a_part = operands_.window_part();
    tile.a_row = p_.step.width * kTileDepth;
    tile.b_part = operands_.panel_part();
    tile.columns = static_cast<int>(std::min(kPanelColumns, p_.outputs - first));
    const bool direct = !turns_narrow() && channels_last() && (tile.columns == 32 || tile.columns == 16);
    tile.c_row = direct ? p_.result.column : kPanelColumns;
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < block.rows; ++i) {
        const Range& met = rows_.ranges[rows_.of[static_cast<std::size_t>(block.row + i)]];
        const std::int64_t skipped = met.begin * operands_.tap_row_slabs();
        tile.slabs = operands_.slabs().data() + skipped;
        tile.k = (met.end - met.begin) * operands_.tap_row_slabs() * kTileDepth;
        tile.a =
            window + (n * operands_.window_rows(block.rows) + i * p_.step.height) * operands_.window_row();
        tile.b = weights + skipped * operands_.panel_slab();
        tile.c = buffer + (n * block.rows + i) * pixels * kPanelColumns;
        if constexpr (sizeof(T) == sizeof(float))
          if (direct) tile.c = p_.result.at(block.image + n, block.row + i, 0) + channel;
        multiply_row(tile, p_.bias ? bias_.data() + channel : nullptr);
      }
    if (!direct) store_panel(block, channel, tile.columns, buffer);
  }

  // In tiles of nearly equal size.
  void multiply_row(Bf16Tile tile, const float* bias) const {
    const std::int64_t pixels = p_.result_size.width, tiles = ceil_div(pixels, kernels_.rows);
    for (std::int64_t t = 0; t < tiles; ++t) {
      tile.rows = static_cast<int>(part_begin(pixels, tiles, t + 1) - part_begin(pixels, tiles, t));
      if (tile.k > 0)
        multiply_(tile);
      else
        for (int i = 0; i < tile.rows; ++i) std::fill_n(tile.c + i * tile.c_row, tile.columns, 0.0F);
      if (bias || p_.activation != Activation::identity)
        kernels().gemm.f32.finish(tile.c, tile.c_row, tile.rows, tile.columns, bias, p_.activation);
      tile.a += tile.rows * tile.a_row;
      tile.c += tile.rows * tile.c_row;
    }
  }

  // buffer (images, rows, columns of the result, 32) to where results lie.
  void store_panel(const Block& block, std::int64_t channel, std::int64_t columns, float* buffer) const {
    const std::int64_t pixels = p_.result_size.width;
    const bool whole = p_.result.row == pixels * p_.result.column;
    const std::int64_t rows = whole ? 1 : block.rows, length = whole ? pixels * block.rows : pixels;
    float* const turned = buffer + block.images * block.rows * pixels * kPanelColumns;
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < rows; ++i, buffer += length * kPanelColumns)
        store_pixels(p_.result.at(block.image + n, block.row + i, 0) + channel * p_.result.channel, buffer,
                     turned, columns, length);
  }

  void store_pixels(float* to, const float* from, float* /*turned*/, std::int64_t columns,
                    std::int64_t length) const {
    if (channels_last())
      kernels().conv.f32.copy(to, p_.result.column, 1, from, kPanelColumns, 1, length, columns);
    else
      kernels().conv.f32.copy(to, p_.result.channel, p_.result.column, from, 1, kPanelColumns, columns,
                              length);
  }

  void store_pixels(std::uint16_t* to, const float* from, float* turned, std::int64_t columns,
                    std::int64_t length) const {
    if (channels_last()) return kernels_.narrow(from, kPanelColumns, to, p_.result.column, length, columns);
    kernels().conv.f32.copy(turned, length, 1, from, 1, kPanelColumns, columns, length);
    if (p_.result.column == 1) return kernels_.narrow(turned, length, to, p_.result.channel, columns, length);
    for (std::int64_t j = 0; j < columns; ++j, turned += length, to += p_.result.channel)
      for (std::int64_t i = 0; i < length; ++i) to[i * p_.result.column] = Bfloat16::narrow(turned[i]);
  }

  const Correlation<T>& p_;
  const Bf16Kernels& kernels_;
  SplitOperands<T> operands_;
  const bool keep_tiny_;
  const Bf16Kernels::TileFunction multiply_;
  const Classes rows_;
  const std::int64_t panels_;
  const Blocks blocks_;
  std::vector<float> bias_;
};

// Parts of an operand; -1: multiply-adds.
template <class T>
int parts_of(const Correlation<T>& c, Precision precision) {
  const Bf16Kernels& kernels = thalweg::kernels().bf16;
  if (precision == Precision::strict || !kernels.name) return -1;
  if (c.inputs < kFewChannels || c.outputs < kFewChannels) return -1;
  if (sizeof(T) == 2) return 0;
  if (precision == Precision::medium) return 1;
  if (!kernels.split || c.inputs < kFewPartChannels) return -1;
  if (precision == Precision::high) return 2;
  return c.taps.count() * c.inputs < kSixDepth ? -1 : 3;
}

}  // namespace

template <class T>
bool correlate_split(const Correlation<T>& problem, Precision precision) {
  const int parts = parts_of(problem, precision);
  if (parts < 0) return false;
  return SplitCorrelator<T>(simplified(problem), parts, precision != Precision::medium).run();
}
template bool correlate_split(const Correlation<float>&, Precision);
template bool correlate_split(const Correlation<std::uint16_t>&, Precision);

}  // namespace thalweg
