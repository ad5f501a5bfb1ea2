// The gradient of a one-element kernel's weights: a product of x and dy over pixels. The operand whose
// channels are a tile's rows is read where it lies, in planes or in pixels; that whose channels are columns
// is copied unless they are neighbours.
#include <cstddef>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_correlation.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

constexpr double kChunkBytes = 4 << 20;        // of columns that are copied before they are multiplied
constexpr std::int64_t kRowBytes = 384 << 10;  // of a task's rows in a block of K: they stay in L2
constexpr std::int64_t kTasksPerThread = 2;
constexpr double kTaskFlops = 3e5;          // a few microseconds
constexpr std::int64_t kAliasBytes = 2048;  // rows this far apart share few sets of L1

// One operand: pixel (n, i, j) of y meets images.at(n, i * step.height, j * step.width).
template <class T>
struct Side {
  Images<const T> images;
  std::int64_t channels;  // of a group
  Extents step;
  std::int64_t in_dw;  // stride of its channels there

  std::int64_t row(std::int64_t n, std::int64_t i) const {
    return n * images.image + i * step.height * images.row;
  }
  std::int64_t pixel() const { return step.width * images.column; }
  bool can_be_rows() const {
    return images.channel == 1 ||
           (pixel() == 1 && images.channel * static_cast<std::int64_t>(sizeof(T)) % kAliasBytes != 0);
  }
};

// sums[g, r, c] = sum over n, i, j of rows[n, i, j, g, r] columns[n, i, j, g, c]
template <class T>
class PixelwiseWeightGradient {
 public:
  PixelwiseWeightGradient(const ConvGeometry& geometry, const Side<T>& rows, const Side<T>& columns)
      : g_(geometry),
        kernels_(kernels().conv.family<T>()),
        rows_(rows),
        columns_(columns),
        copied_(columns.images.channel != 1),
        span_((g_.y.width - 1) * columns.step.width + 1),
        panels_(ceil_div(columns.channels, width())),
        row_tiles_(ceil_div(rows.channels, kernels_.tile_rows)),
        blocks_(g_.images, g_.y.height, static_cast<double>(g_.y.width), kConvDepth<T>, g_.images) {
    const double pixels = static_cast<double>(blocks_.most_images() * blocks_.most_rows() * g_.y.width);
    const double channels = static_cast<double>(g_.groups * rows.channels);
    const auto worthwhile = static_cast<std::int64_t>(
        1 + 2 * channels * static_cast<double>(g_.images * g_.y.height * g_.y.width * columns.channels) /
                kTaskFlops);
    const std::int64_t tasks = std::min(worthwhile, kTasksPerThread * num_threads());
    const auto fit = static_cast<std::int64_t>(channels * pixels * sizeof(T) / kRowBytes);
    row_parts_ = std::clamp<std::int64_t>(ceil_div(std::max(tasks, fit), g_.groups), 1, row_tiles_);
    column_parts_ = std::clamp<std::int64_t>(ceil_div(tasks, g_.groups * row_parts_), 1, panels_);
  }

  // dw as groups, this many elements apart.
  void run(T* dw, std::int64_t group) {
    thread_local GemmWorkspace workspace;
    const std::int64_t sums_size = g_.groups * panels_ * rows_.channels * width();
    const std::int64_t block_size = copied_ ? g_.groups * panels_ * panel_elements(largest_block()) : 0;
    const std::int64_t chunk = blocks_of_chunk(block_size);
    workspace.reserve(static_cast<std::size_t>(sums_size + chunk * block_size) * sizeof(T), 0, 0);
    sums_ = reinterpret_cast<T*>(workspace.shared());
    if (blocks_.count() == 0) std::fill_n(sums_, sums_size, T(0));
    std::vector<Piece> pieces(static_cast<std::size_t>(chunk));
    for (std::int64_t first = 0; first < blocks_.count(); first += chunk) {
      const std::int64_t count = std::min(chunk, blocks_.count() - first);
      parallel_for(count, copied_ ? 1 : count, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          pieces[i] = prepare(blocks_.at(first + i), sums_ + sums_size + i * block_size);
      });
      parallel_for(tasks(), 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t task = begin; task < end; ++task)
          for (std::int64_t i = 0; i < count; ++i) multiply(pieces[i], first + i > 0, part(task));
      });
    }
    parallel_for(tasks(), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t task = begin; task < end; ++task) store(part(task), dw + part(task).group * group);
    });
  }

 private:
  // What a task computes: tiles of rows and panels of columns.
  struct Part {
    std::int64_t group;
    Range tiles, panels;
  };

  // A block of pixels: where each panel of columns begins, and how its pixels follow each other.
  struct Piece {
    const T* columns;
    std::int64_t panel, group;
    std::vector<ConvRun> runs;
  };

  std::int64_t width() const { return kernels_.tile_columns(); }
  std::int64_t tasks() const { return g_.groups * row_parts_ * column_parts_; }
  Block largest_block() const { return {0, blocks_.most_images(), 0, blocks_.most_rows()}; }

  Part part(std::int64_t task) const {
    const std::int64_t r = task / column_parts_ % row_parts_, c = task % column_parts_;
    return {task / (row_parts_ * column_parts_),
            {part_begin(row_tiles_, row_parts_, r), part_begin(row_tiles_, row_parts_, r + 1)},
            {part_begin(panels_, column_parts_, c), part_begin(panels_, column_parts_, c + 1)}};
  }

  // Of a block's copy. Columns between those that y meets are copied with them: squares are transposed.
  std::int64_t panel_elements(const Block& block) const {
    return block.images * block.rows * span_ * width();
  }

  std::int64_t blocks_of_chunk(std::int64_t block_size) const {
    const std::int64_t all = std::max<std::int64_t>(1, blocks_.count());
    if (!copied_) return all;
    const double bytes = static_cast<double>(block_size) * sizeof(T);
    return std::clamp<std::int64_t>(static_cast<std::int64_t>(kChunkBytes / bytes), 1, all);
  }

  Piece prepare(const Block& block, T* copy) const {
    const std::int64_t all_panels = g_.groups * panels_, panel = panel_elements(block);
    const std::int64_t b_row = copied_ ? columns_.step.width * width() : columns_.pixel();
    Piece piece{copied_ ? copy : columns_.images.data,
                copied_ ? panel : width(),
                copied_ ? panels_ * panel : columns_.channels,
                {}};
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < block.rows; ++i) {
        const std::int64_t a = rows_.row(block.image + n, block.row + i);
        const std::int64_t row = columns_.row(block.image + n, block.row + i);
        const std::int64_t at = (n * block.rows + i) * span_ * width();
        append(piece.runs, {a, copied_ ? at : row, g_.y.width}, b_row);
        for (std::int64_t p = 0; copied_ && p < all_panels; ++p) {
          const std::int64_t first = p % panels_ * width();
          kernels_.copy(copy + p * panel + at, width(), 1,
                        columns_.images.data + row +
                            (p / panels_ * columns_.channels + first) * columns_.images.channel,
                        columns_.images.column, columns_.images.channel, span_,
                        std::min(width(), columns_.channels - first));
        }
      }
    return piece;
  }

  void append(std::vector<ConvRun>& runs, const ConvRun& run, std::int64_t b_row) const {
    if (!runs.empty() && runs.back().a + runs.back().length * rows_.pixel() == run.a &&
        runs.back().b + runs.back().length * b_row == run.b)
      runs.back().length += run.length;
    else
      runs.push_back(run);
  }

  T* sums(const Part& part, std::int64_t panel, std::int64_t row) const {
    return sums_ + ((part.group * panels_ + panel) * rows_.channels + row) * width();
  }

  int columns_of(std::int64_t panel) const {
    return static_cast<int>(std::min(width(), columns_.channels - panel * width()));
  }

  void multiply(const Piece& piece, bool accumulate, const Part& part) const {
    const bool along = rows_.images.channel == 1;
    const auto* const tiles = along ? kernels_.column_tiles : kernels_.tiles;
    ConvTile<T> tile;
    tile.a_step = along ? rows_.pixel() : rows_.images.channel;
    tile.runs = piece.runs.data();
    tile.run_count = static_cast<std::int64_t>(piece.runs.size());
    tile.b_row = copied_ ? columns_.step.width * width() : columns_.pixel();
    tile.c_row = width();
    tile.accumulate = accumulate;
    for (std::int64_t panel = part.panels.begin; panel < part.panels.end; ++panel) {
      tile.b = piece.columns + part.group * piece.group + panel * piece.panel;
      tile.columns = columns_of(panel);
      for (std::int64_t i = part.tiles.begin; i < part.tiles.end; ++i) {
        const std::int64_t row = part_begin(rows_.channels, row_tiles_, i);
        tile.a = rows_.images.data + (part.group * rows_.channels + row) * rows_.images.channel;
        tile.c = sums(part, panel, row);
        tiles[kernels_.index(part_begin(rows_.channels, row_tiles_, i + 1) - row, tile.columns,
                             kernels_.vector)](tile);
      }
    }
  }

  void store(const Part& part, T* dw) const {
    const std::int64_t row = part_begin(rows_.channels, row_tiles_, part.tiles.begin);
    const std::int64_t count = part_begin(rows_.channels, row_tiles_, part.tiles.end) - row;
    for (std::int64_t panel = part.panels.begin; panel < part.panels.end; ++panel) {
      T* const to = dw + row * rows_.in_dw + panel * width() * columns_.in_dw;
      if (rows_.in_dw == 1)
        kernels_.copy(to, columns_.in_dw, 1, sums(part, panel, row), 1, width(), columns_of(panel), count);
      else
        kernels_.copy(to, rows_.in_dw, columns_.in_dw, sums(part, panel, row), width(), 1, count,
                      columns_of(panel));
    }
  }

  const ConvGeometry& g_;
  const ConvFamily<T>& kernels_;
  const Side<T> rows_, columns_;
  const bool copied_;        // columns are
  const std::int64_t span_;  // pixels that are copied for a row of y
  const std::int64_t panels_, row_tiles_;
  const Blocks blocks_;
  std::int64_t row_parts_, column_parts_;
  T* sums_ = nullptr;
};

}  // namespace

// True if it was done. Rows are the channels of more, so that fewer are copied, unless they cannot be.
template <class T>
bool pixelwise_weight_gradient(const ConvGeometry& g, const View& dy, const View& x, const View& dw) {
  const auto inside = [](std::int64_t y, std::int64_t step, std::int64_t padding, std::int64_t size) {
    return padding == 0 && (y - 1) * step < size;
  };
  if (g.kernel.height * g.kernel.width != 1 ||
      !inside(g.y.height, g.stride.height, g.padding.height, g.x.height) ||
      !inside(g.y.width, g.stride.width, g.padding.width, g.x.width))
    return false;
  const Side<T> inputs{Images<const T>(x), g.channels / g.groups, g.stride, dw.strides[1]};
  const Side<T> outputs{Images<const T>(dy), g.outputs / g.groups, {1, 1}, dw.strides[0]};
  const bool more = inputs.channels > outputs.channels;
  const Side<T>& rows = (more && inputs.can_be_rows()) || !outputs.can_be_rows() ? inputs : outputs;
  if (!rows.can_be_rows()) return false;
  PixelwiseWeightGradient<T>(g, rows, &rows == &inputs ? outputs : inputs)
      .run(dw.as<T>(), outputs.channels * dw.strides[0]);
  return true;
}
template bool pixelwise_weight_gradient<float>(const ConvGeometry&, const View&, const View&, const View&);
template bool pixelwise_weight_gradient<double>(const ConvGeometry&, const View&, const View&, const View&);

}  // namespace thalweg
