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

constexpr double kChunkBytes = 2 << 20;  // of the blocks that are copied before they are multiplied
constexpr double kTaskFlops = 3e5;       // a few microseconds

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
        panels_(ceil_div(outputs_, width())),
        blocks_(g_.images, g_.y.height, static_cast<double>(g_.y.width), kConvDepth<T>, g_.images) {
    for (std::int64_t i = 0; i < all_of(taps_.rows).end; ++i)
      for (std::int64_t j = 0; j < (by_tap_ ? all_of(taps_.columns).end : 1); ++j) {
        const Range columns = by_tap_ ? Range{j, j + 1} : all_of(taps_.columns);
        for (const ConvRun& run : window_.runs(taps_, {i, i + 1}, columns, inputs_, 0, k_, 1)) {
          strips_.push_back({i, columns, run.a, run.b, run.length});
          row_tiles_ += ceil_div(run.length, kernels_.tile_rows);
        }
      }
  }

  void run() {
    thread_local GemmWorkspace workspace;
    const std::int64_t block_images = std::max<std::int64_t>(1, blocks_.most_images());
    window_size_ = ceil_div(window_.elements(block_images, blocks_.most_rows()), 64) * 64;
    dy_size_ = block_images * blocks_.most_rows() * g_.y.width * g_.groups * panels_ * width();
    const double block_bytes = static_cast<double>((window_size_ + dy_size_) * sizeof(T));
    const std::int64_t chunk =
        std::clamp<std::int64_t>(static_cast<std::int64_t>(kChunkBytes / std::max(1.0, block_bytes)), 1,
                                 std::max<std::int64_t>(1, blocks_.count()));
    const std::int64_t sums_size = g_.groups * panels_ * k_ * width();
    workspace.reserve(static_cast<std::size_t>(sums_size + chunk * (window_size_ + dy_size_)) * sizeof(T), 0,
                      0);
    sums_ = reinterpret_cast<T*>(workspace.shared());
    T* const copies = sums_ + sums_size;
    if (blocks_.count() == 0) std::fill_n(sums_, sums_size, T(0));
    std::vector<Piece> pieces(static_cast<std::size_t>(chunk));
    for (std::int64_t first = 0; first < blocks_.count(); first += chunk) {
      const std::int64_t count = std::min(chunk, blocks_.count() - first);
      parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = begin; i < end; ++i)
          pieces[i] = copy_block(blocks_.at(first + i), copies + i * (window_size_ + dy_size_));
      });
      const std::int64_t tiles = g_.groups * panels_ * row_tiles_;
      parallel_for(tiles, grain(count), [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t i = 0; i < count; ++i) multiply_tiles(pieces[i], first + i > 0, begin, end);
      });
    }
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

  // A block's operands: dy as panels (group, panel, pixel, width()).
  struct Piece {
    Block block;
    typename Windows<T>::Place x;
    const T* dy;
    std::vector<std::vector<ConvRun>> runs;  // of each strip: the pixels that see x, relative to the first
  };

  std::int64_t width() const { return kernels_.tile_columns(); }

  // Tiles that make a task.
  std::int64_t grain(std::int64_t blocks) const {
    const double flops =
        2.0 * static_cast<double>(kernels_.tile_rows * width()) *
        static_cast<double>(blocks * blocks_.most_images() * blocks_.most_rows() * g_.y.width);
    const std::int64_t tiles = g_.groups * panels_ * row_tiles_;
    return std::max({std::int64_t{1}, static_cast<std::int64_t>(kTaskFlops / std::max(1.0, flops)),
                     tiles / (4 * num_threads())});
  }

  Piece copy_block(const Block& block, T* copies) const {
    Piece piece{block, window_.place(block, copies, kernels_), copies + window_size_, {}};
    const std::int64_t pixels = g_.y.width;
    T* to = copies + window_size_;
    for (std::int64_t panel = 0; panel < g_.groups * panels_; ++panel) {
      const std::int64_t first = panel % panels_ * width(), columns = std::min(width(), outputs_ - first);
      const T* from = dy_.data + (panel / panels_ * outputs_ + first) * dy_.channel;
      const bool whole = dy_.row == pixels * dy_.column;
      const std::int64_t rows = whole ? 1 : block.rows, length = whole ? pixels * block.rows : pixels;
      for (std::int64_t n = 0; n < block.images; ++n)
        for (std::int64_t i = 0; i < rows; ++i, to += length * width())
          kernels_.copy(to, width(), 1, from + (block.image + n) * dy_.image + (block.row + i) * dy_.row,
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
                        pixel * width(), seen.end - seen.begin});
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

  // Tiles begin … end, counted through groups, panels, strips and their rows.
  void multiply_tiles(const Piece& piece, bool accumulate, std::int64_t begin, std::int64_t end) const {
    const std::int64_t pixels = piece.block.images * piece.block.rows * g_.y.width;
    ConvTile<T> tile;
    tile.a_step = g_.stride.width * piece.x.column;
    tile.b_row = tile.c_row = width();
    tile.accumulate = accumulate;
    for (std::int64_t panel = begin / row_tiles_; panel * row_tiles_ < end; ++panel) {
      tile.columns = static_cast<int>(std::min(width(), outputs_ - panel % panels_ * width()));
      tile.b = piece.dy + panel * pixels * width();
      std::int64_t at = panel * row_tiles_;
      for (std::size_t s = 0; s < strips_.size(); ++s) {
        const Strip& strip = strips_[s];
        const std::int64_t parts = ceil_div(strip.length, kernels_.tile_rows);
        tile.runs = piece.runs[s].data();
        tile.run_count = static_cast<std::int64_t>(piece.runs[s].size());
        for (std::int64_t i = std::clamp<std::int64_t>(begin - at, 0, parts),
                          last = std::clamp<std::int64_t>(end - at, 0, parts);
             i < last; ++i) {
          const std::int64_t row = part_begin(strip.length, parts, i);
          const std::int64_t rows = part_begin(strip.length, parts, i + 1) - row;
          tile.a = piece.x.data + panel / panels_ * inputs_ + strip.offset + row;
          tile.c = sums_ + (panel * k_ + strip.first + row) * width();
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
        const std::int64_t first = panel % panels_ * width(), columns = std::min(width(), outputs_ - first);
        T* to = dw_.as<T>() + (panel / panels_ * outputs_ + first) * output;
        const T* from = sums_ + panel * k_ * width();
        if (regular && taps > 3)  // a matrix (columns, taps) for each channel
          for (std::int64_t c = 0; c < inputs_; ++c)
            kernels_.copy(to + c * input, output, 1, from + c * width(), 1, inputs_ * width(), columns, taps);
        else
          for (std::int64_t t = 0; t < taps; ++t)
            kernels_.copy(to + taps_.weight(t), output, input, from + t * inputs_ * width(), 1, width(),
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
  const std::int64_t k_, panels_;
  const Blocks blocks_;
  std::vector<Strip> strips_;
  std::int64_t row_tiles_ = 0, window_size_ = 0, dy_size_ = 0;
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
