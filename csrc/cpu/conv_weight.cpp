// The gradient of a convolution's weights: for each tap a product of x, shifted, and dy over the pixels
// that see x through it.
#include <cstddef>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_correlation.h"
#include "cpu/conv_widen.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

constexpr double kUneven = 1.1;  // what the most busy of all threads may have to do, compared to their mean

// sums[g, t, c, o] = sum over n, i, j of x[n, i * step + t.row, j * step + t.column, g, c] dy[n, i, j, g, o]
template <class T>
class WeightGradient {
 public:
  WeightGradient(const ConvGeometry& geometry, const View& dy, const View& x, const View& dw)
      : g_(geometry),
        dw_(dw),
        dy_(dy),
        kernels_(kernels().conv.family<T>()),
        taps_(taps_of(geometry, dw)),
        rows_(taps_.rows, g_.y.height, g_.stride.height, g_.x.height),
        inputs_(g_.channels / g_.groups),
        outputs_(g_.outputs / g_.groups),
        by_tap_(inputs_ >= kernels_.tile_rows),
        window_(Images<const T>(x), g_.channels, g_.x, g_.stride, g_.y, taps_, by_tap_),
        k_(taps_.count() * inputs_),
        blocks_(g_.images, g_.y.height, static_cast<double>(g_.y.width), kConvDepth<T>, g_.images) {
    for (std::int64_t i = 0; i < all_of(taps_.rows).end; ++i)
      for (std::int64_t j = 0; j < (by_tap_ ? all_of(taps_.columns).end : 1); ++j) {
        const Range columns = by_tap_ ? Range{j, j + 1} : all_of(taps_.columns);
        for (const ConvRun& run : window_.runs(taps_, {i, i + 1}, columns, inputs_, 0, k_, 1)) {
          strips_.push_back({i, columns, run.a, run.b, run.length});
          row_tiles_ += ceil_div(run.length, kernels_.tile_rows);
        }
      }
    cut(kernels_.tile_columns());
    if (static_cast<double>(ceil_div(tiles(), shares_) * shares_) > kUneven * static_cast<double>(tiles()))
      cut(kernels_.vector);
  }

  // Every thread copies what its own tiles need. Why not once for all: threads would wait for each other
  // block by block, and for lines that another core has written; two took longer than one.
  void run() {
    thread_local GemmWorkspace workspace;
    GemmWorkspace* const memory = &workspace;
    const std::int64_t images = std::max<std::int64_t>(1, blocks_.most_images());
    const std::int64_t window_size = round_up(window_.elements(images, blocks_.most_rows()), 64);
    const std::int64_t panels = std::min(g_.groups * panels_, ceil_div(tiles(), shares_ * row_tiles_) + 1);
    const std::int64_t dy_size = images * blocks_.most_rows() * g_.y.width * panels * width_;
    const std::int64_t sums_size = g_.groups * panels_ * k_ * width_;
    memory->reserve(static_cast<std::size_t>(sums_size) * sizeof(T),
                    static_cast<std::size_t>(window_size + dy_size) * sizeof(T), static_cast<int>(shares_));
    sums_ = reinterpret_cast<T*>(memory->shared());
    if (blocks_.count() == 0) std::fill_n(sums_, sums_size, T(0));
    parallel_for(shares_, 1, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(*memory);
      T* const window = reinterpret_cast<T*>(slot.data());
      for (std::int64_t share = begin; share < end; ++share) {
        const Range tiles{part_begin(this->tiles(), shares_, share),
                          part_begin(this->tiles(), shares_, share + 1)};
        for (std::int64_t i = 0; i < blocks_.count(); ++i)
          multiply_tiles(copy_block(blocks_.at(i), tiles, window, window + window_size), i > 0, tiles);
      }
    });
    store_sums();
  }

 private:
  // Rows of the sums that are neighbours in a window: the channels of a tap, or where these are few, of
  // those taps of a kernel row that touch.
  struct Strip {
    std::int64_t tap_row;
    Range tap_columns;
    std::int64_t offset, first, length;  // in the window; rows of the sums
  };

  // A block's operands: dy as panels (group, panel, pixel, width_).
  struct Piece {
    Block block;
    typename Windows<T>::Place x;
    const T* dy;
    std::vector<std::vector<ConvRun>> runs;  // of each strip: the pixels that see x, relative to the first
  };

  void cut(std::int64_t width) {
    width_ = width;
    panels_ = ceil_div(outputs_, width);
    shares_ = std::min<std::int64_t>(num_threads(), tiles());
  }

  std::int64_t tiles() const { return g_.groups * panels_ * row_tiles_; }

  Piece copy_block(const Block& block, Range tiles, T* window, T* to) const {
    Piece piece{block, window_.place(block, window, kernels_), to, {}};
    const std::int64_t pixels = g_.y.width;
    for (std::int64_t panel = tiles.begin / row_tiles_; panel * row_tiles_ < tiles.end; ++panel) {
      const std::int64_t first = panel % panels_ * width_, columns = std::min(width_, outputs_ - first);
      const T* from = dy_.data + (panel / panels_ * outputs_ + first) * dy_.channel;
      const bool whole = dy_.row == pixels * dy_.column;
      const std::int64_t rows = whole ? 1 : block.rows, length = whole ? pixels * block.rows : pixels;
      for (std::int64_t n = 0; n < block.images; ++n)
        for (std::int64_t i = 0; i < rows; ++i, to += length * width_)
          kernels_.copy(to, width_, 1, from + (block.image + n) * dy_.image + (block.row + i) * dy_.row,
                        dy_.column, dy_.channel, length, columns);
    }
    for (const Strip& strip : strips_) piece.runs.push_back(runs_of(strip, block, piece.x));
    return piece;
  }

  std::vector<ConvRun> runs_of(const Strip& strip, const Block& block,
                               const typename Windows<T>::Place& x) const {
    Range seen{0, g_.y.width};
    if (by_tap_) seen = seeing(taps_.columns[static_cast<std::size_t>(strip.tap_columns.begin)].offset);
    std::vector<ConvRun> runs;
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < block.rows; ++i) {
        const Range& met = rows_.ranges[rows_.of[static_cast<std::size_t>(block.row + i)]];
        if (strip.tap_row < met.begin || strip.tap_row >= met.end || seen.begin >= seen.end) continue;
        const std::int64_t pixel = (n * block.rows + i) * g_.y.width + seen.begin;
        runs.push_back({n * x.image + i * g_.stride.height * x.row + seen.begin * g_.stride.width * x.column,
                        pixel * width_, seen.end - seen.begin});
      }
    return runs;
  }

  // The columns of y that see x through a tap.
  Range seeing(std::int64_t offset) const {
    const std::int64_t step = g_.stride.width;
    return {std::clamp<std::int64_t>(ceil_div(std::max<std::int64_t>(0, -offset), step), 0, g_.y.width),
            std::clamp<std::int64_t>(ceil_div(std::max<std::int64_t>(0, g_.x.width - offset), step), 0,
                                     g_.y.width)};
  }

  // Tiles are counted through groups, panels, strips and their rows.
  void multiply_tiles(const Piece& piece, bool accumulate, Range tiles) const {
    const std::int64_t pixels = piece.block.images * piece.block.rows * g_.y.width;
    ConvTile<T> tile;
    tile.a_step = g_.stride.width * piece.x.column;
    tile.b_row = tile.c_row = width_;
    tile.accumulate = accumulate;
    const std::int64_t first_panel = tiles.begin / row_tiles_;
    for (std::int64_t panel = first_panel; panel * row_tiles_ < tiles.end; ++panel) {
      tile.columns = static_cast<int>(std::min(width_, outputs_ - panel % panels_ * width_));
      tile.b = piece.dy + (panel - first_panel) * pixels * width_;
      std::int64_t at = panel * row_tiles_;
      for (std::size_t s = 0; s < strips_.size(); ++s) {
        const Strip& strip = strips_[s];
        const std::int64_t parts = ceil_div(strip.length, kernels_.tile_rows);
        tile.runs = piece.runs[s].data();
        tile.run_count = static_cast<std::int64_t>(piece.runs[s].size());
        for (std::int64_t i = std::clamp<std::int64_t>(tiles.begin - at, 0, parts),
                          last = std::clamp<std::int64_t>(tiles.end - at, 0, parts);
             i < last; ++i) {
          const std::int64_t row = part_begin(strip.length, parts, i);
          const std::int64_t rows = part_begin(strip.length, parts, i + 1) - row;
          tile.a = piece.x.data + panel / panels_ * inputs_ + strip.offset + row;
          tile.c = sums_ + (panel * k_ + strip.first + row) * width_;
          kernels_.column_tiles[kernels_.index(rows, tile.columns, kernels_.vector)](tile);
        }
        at += parts;
      }
    }
  }

  void store_sums() const {
    const std::int64_t taps = taps_.count();
    const std::int64_t input = dw_.strides[1], output = dw_.strides[0];
    const bool regular = dw_.strides[3] == 1 && dw_.strides[2] == g_.kernel.width;
    parallel_for(g_.groups * panels_, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t panel = begin; panel < end; ++panel) {
        const std::int64_t first = panel % panels_ * width_, columns = std::min(width_, outputs_ - first);
        T* to = dw_.as<T>() + (panel / panels_ * outputs_ + first) * output;
        const T* from = sums_ + panel * k_ * width_;
        if (regular && taps > 3)  // a matrix (columns, taps) for each channel
          for (std::int64_t c = 0; c < inputs_; ++c)
            kernels_.copy(to + c * input, output, 1, from + c * width_, 1, inputs_ * width_, columns, taps);
        else
          for (std::int64_t t = 0; t < taps; ++t)
            kernels_.copy(to + taps_.weight(t), output, input, from + t * inputs_ * width_, 1, width_,
                          columns, inputs_);
      }
    });
  }

  const ConvGeometry& g_;
  const View& dw_;
  const Images<const T> dy_;
  const ConvFamily<T>& kernels_;
  const Taps taps_;
  const Classes rows_;
  const std::int64_t inputs_, outputs_;
  const bool by_tap_;  // each tap has enough channels for a tile, and skips the pixels that miss x
  const Windows<T> window_;
  const std::int64_t k_;
  const Blocks blocks_;
  std::vector<Strip> strips_;
  std::int64_t row_tiles_ = 0;           // of a panel
  std::int64_t width_ = 0, panels_ = 0;  // columns of a panel of outputs
  std::int64_t shares_ = 0;              // of the tiles, one for each thread
  T* sums_ = nullptr;
};

}  // namespace

void conv2d_weight_gradient(const ConvGeometry& geometry, const View& dy, const View& x, const View& dw) {
  if (dw.dtype == DType::bf16) return conv2d_weight_gradient_widened(geometry, dy, x, dw);
  if (dw.elements() == 0 || channelwise_weight_gradient(geometry, dy, x, dw)) return;
  if (fewer_products(geometry.precision) && winograd_weight_gradient(geometry, dy, x, dw)) return;
  with_float_type(dw.dtype, [&]<class T>(T) {
    if (!pixelwise_weight_gradient<T>(geometry, dy, x, dw)) WeightGradient<T>(geometry, dy, x, dw).run();
  });
}

}  // namespace thalweg
