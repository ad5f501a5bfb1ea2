// Correlations of few results for each pixel, as those of a first layer's gradient of data: a vector holds
// neighbouring pixels instead of channels. The roles of a tile's operands are exchanged: its rows are rows
// of the result (each with all its channels), its columns the pixels of such a row, and its K the kernel's
// columns and their channels in one row of the source, which serves as many rows of the result as the
// kernel has. Bits: those of all others, see docs/numerics.md.
#include <cstddef>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_correlation.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

constexpr double kBlockBytes = 512 << 10;  // of a block's window: it stays in L2
constexpr std::int64_t kMostRows = 16;     // of the result at a time

struct Reach {
  std::int64_t low = 0, high = 0;

  void include(const std::vector<AxisTap>& taps) {
    for (const AxisTap& tap : taps) low = std::min(low, tap.offset), high = std::max(high, tap.offset);
  }
};

// The taps of a kernel column by column, and the blocks of K.
template <class T>
struct PlanePhase {
  const Correlation<T>& problem;
  std::int64_t outputs = problem.outputs;
  std::int64_t tap_rows = all_of(problem.taps.rows).end;
  std::int64_t first = tap_rows ? problem.taps.rows[0].offset : 0;
  std::int64_t step = tap_rows > 1 ? problem.taps.rows[1].offset - first : 1;  // from tap to tap
  std::int64_t row_depth = all_of(problem.taps.columns).end * problem.inputs;
  std::int64_t k = tap_rows * row_depth;
  std::int64_t depths = std::max<std::int64_t>(1, ceil_div(k, kConvDepth<T>));
  std::int64_t depth = std::max<std::int64_t>(1, ceil_div(k, depths));
  std::int64_t weights = 0;  // where they begin

  std::int64_t k_row() const { return tap_rows * outputs; }
  std::int64_t distance() const { return step < 0 ? -step : step; }  // of rows that share a source row
  // Of a tap, in the order of the rows of the result that meet one row of the source.
  std::int64_t position(std::int64_t tap) const { return step < 0 ? tap : tap_rows - 1 - tap; }
};

template <class T>
class PlaneCorrelator {
 public:
  explicit PlaneCorrelator(const std::vector<Correlation<T>>& problems)
      : p_(problems.front()), kernels_(kernels().conv.family<T>()) {
    for (const Correlation<T>& problem : problems) {
      phases_.push_back({problem});
      phases_.back().weights = weights_;
      weights_ += p_.groups * phases_.back().k * p_.outputs;
      rows_.include(problem.taps.rows);
      columns_.include(problem.taps.columns);
      most_.height = std::max(most_.height, problem.result_size.height);
      most_.width = std::max(most_.width, problem.result_size.width);
    }
    width_ = round_up(most_.width + columns_.high - columns_.low);
    pitch_ = round_up(most_.width);
  }

  void run() {
    const std::int64_t channels = p_.groups * p_.inputs;
    const Blocks blocks(p_.images, most_.height, static_cast<double>(sizeof(T)) * row_elements(channels),
                        kBlockBytes, 1);
    // An odd number of lines, so that planes fall into different sets of L1.
    plane_ = (((blocks.most_rows() + rows_.high - rows_.low) * width_ / kLine) | 1) * kLine;
    const std::int64_t sums = kMostRows * p_.outputs * pitch_;
    thread_local GemmWorkspace workspace;
    GemmWorkspace* const memory = &workspace;
    memory->reserve(bytes_of(weights_), bytes_of(channels * plane_ + 2 * sums), num_threads());
    T* const weights = reinterpret_cast<T*>(memory->shared());
    for (const Phase& phase : phases_) pack_weights(phase, weights + phase.weights);
    parallel_for(blocks.count(), 1, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(*memory);
      T* const window = reinterpret_cast<T*>(slot.data());
      for (std::int64_t i = begin; i < end; ++i) {
        const Block block = blocks.at(i);
        copy_window(block, window);
        for (const Phase& phase : phases_)
          correlate_block(phase, block, weights + phase.weights,
                          {window, window + channels * plane_, window + channels * plane_ + sums});
      }
    });
  }

 private:
  using Phase = PlanePhase<T>;
  static constexpr std::int64_t kLine = 64 / static_cast<std::int64_t>(sizeof(T));

  // Of a thread: the source (channel, row, column), a block's sums and the blocks' (row, output, pixel).
  struct Scratch {
    T *window, *sums, *totals;
  };

  // Neighbouring rows of the result, `distance()` apart.
  struct Rows {
    std::int64_t image, group, first, count;
  };

  static std::int64_t round_up(std::int64_t n) { return ceil_div(n, kLine) * kLine; }
  static std::size_t bytes_of(std::int64_t n) { return static_cast<std::size_t>(n) * sizeof(T); }
  double row_elements(std::int64_t channels) const { return static_cast<double>(channels * width_); }
  std::int64_t top(const Block& block) const { return block.row + rows_.low; }

  // (group, kernel column, input, kernel row, output)
  void pack_weights(const Phase& phase, T* to) const {
    const Correlation<T>& c = phase.problem;
    for (std::int64_t g = 0; g < c.groups; ++g)
      for (const AxisTap& column : c.taps.columns)
        for (std::int64_t input = 0; input < c.inputs; ++input, to += phase.k_row())
          for (std::int64_t tap = 0; tap < phase.tap_rows; ++tap)
            for (std::int64_t o = 0; o < c.outputs; ++o)
              to[phase.position(tap) * c.outputs + o] =
                  c.weight.data[g * c.weight.group + input * c.weight.input + o * c.weight.output +
                                column.weight + c.taps.rows[static_cast<std::size_t>(tap)].weight];
  }

  // The rows of the source that the block sees, with zeros left and right of it.
  void copy_window(const Block& block, T* window) const {
    const Extents size = p_.source_size;
    const std::int64_t channels = p_.groups * p_.inputs, first = columns_.low;
    const std::int64_t last = std::min(size.height, block.row + block.rows + rows_.high);
    const std::int64_t begin = std::clamp<std::int64_t>(-first, 0, width_);
    const std::int64_t end = std::clamp<std::int64_t>(size.width - first, begin, width_);
    for (std::int64_t row = std::max<std::int64_t>(0, top(block)); row < last; ++row) {
      T* const to = window + (row - top(block)) * width_;
      for (std::int64_t c = 0; c < channels; ++c) {
        std::fill(to + c * plane_, to + c * plane_ + begin, T(0));
        std::fill(to + c * plane_ + end, to + c * plane_ + width_, T(0));
      }
      kernels_.copy(to + begin, plane_, 1, p_.source.at(block.image, row, first + begin), p_.source.channel,
                    p_.source.column, channels, end - begin);
    }
  }

  void correlate_block(const Phase& phase, const Block& block, const T* weights, const Scratch& s) const {
    const std::int64_t rows = std::min(block.rows, phase.problem.result_size.height - block.row);
    const std::int64_t fit =
        phase.k_row() <= kernels_.tile_rows ? kMostRows : kernels_.tile_rows / p_.outputs;
    for (std::int64_t g = 0; g < p_.groups; ++g)
      for (std::int64_t i = 0; i < std::min(rows, phase.distance()); ++i) {
        const std::int64_t count = ceil_div(rows - i, phase.distance()), parts = ceil_div(count, fit);
        for (std::int64_t part = 0; part < parts; ++part) {
          const std::int64_t begin = part_begin(count, parts, part), end = part_begin(count, parts, part + 1);
          const Rows some{block.image, g, block.row + i + begin * phase.distance(), end - begin};
          correlate_rows(phase, some, top(block), weights + g * phase.k * p_.outputs, s);
          store_rows(phase, some, phase.depths > 1 ? s.totals : s.sums);
        }
      }
  }

  // The chains of all rows go on from one row of the source to the next, in the order of the taps.
  void correlate_rows(const Phase& phase, const Rows& rows, std::int64_t top, const T* weights,
                      const Scratch& s) const {
    const std::int64_t elements = rows.count * p_.outputs * pitch_;
    std::fill_n(s.sums, elements, T(0));
    if (phase.depths > 1) std::fill_n(s.totals, elements, T(0));
    const std::int64_t source_rows = phase.k ? phase.tap_rows + rows.count - 1 : 0;
    for (std::int64_t n = 0; n < source_rows; ++n) {
      // Row m of the result meets the source through tap n - m, or m - n of the rows from the last.
      const std::int64_t at = phase.step < 0 ? rows.count - 1 - n : n;
      const std::int64_t before = phase.step < 0 ? 0 : phase.tap_rows - 1;
      const Range met{std::max<std::int64_t>(0, at - before),
                      std::min(rows.count, at - before + phase.tap_rows)};
      const std::int64_t row = rows.first + phase.first + at * phase.distance();
      const T* const source = row < 0 || row >= p_.source_size.height
                                  ? nullptr
                                  : s.window + rows.group * p_.inputs * plane_ + (row - top) * width_;
      correlate_source_row(phase, met, at, source, weights, s);
    }
    if (phase.depths > 1)
      for (std::int64_t m = 0; m < rows.count; ++m) end_block(m, s);
  }

  // Cut where a block of K ends for one of the rows.
  void correlate_source_row(const Phase& phase, Range met, std::int64_t at, const T* source, const T* weights,
                            const Scratch& s) const {
    const auto k_of = [&](std::int64_t m) { return (phase.step < 0 ? m - at : at - m) * phase.row_depth; };
    for (std::int64_t from = 0, to = 0; from < phase.row_depth; from = to) {
      to = phase.row_depth;
      for (std::int64_t m = met.begin; m < met.end; ++m) {
        const std::int64_t end = ((k_of(m) + from) / phase.depth + 1) * phase.depth;
        to = std::min(to, end - k_of(m));
      }
      if (source) {
        const std::int64_t tap = k_of(met.begin) / phase.row_depth;
        multiply(phase, met, {from, to}, source, weights + phase.position(tap) * p_.outputs, s.sums);
      }
      for (std::int64_t m = met.begin; m < met.end; ++m)
        if (const std::int64_t end = k_of(m) + to; end % phase.depth == 0 && end < phase.k) end_block(m, s);
    }
  }

  // Elements from … to of a row of taps.
  void multiply(const Phase& phase, Range met, Range k, const T* source, const T* weights, T* sums) const {
    thread_local std::vector<ConvRun> runs;
    runs.clear();
    for (std::int64_t at = k.begin; at < k.end; at += runs.back().length) {
      const AxisTap& column = phase.problem.taps.columns[static_cast<std::size_t>(at / p_.inputs)];
      const std::int64_t channel = at % p_.inputs;
      runs.push_back({at * phase.k_row(), column.offset - columns_.low + channel * plane_,
                      std::min(p_.inputs - channel, k.end - at)});
    }
    ConvTile<T> tile;
    tile.a = weights;
    tile.a_step = phase.k_row();
    tile.runs = runs.data();
    tile.run_count = static_cast<std::int64_t>(runs.size());
    tile.b_row = plane_;
    tile.c_row = pitch_;
    tile.accumulate = false;
    tile.resume = true;
    const std::int64_t width = phase.problem.result_size.width;
    for (std::int64_t j = 0; j < width; j += kernels_.tile_columns()) {
      tile.columns = static_cast<int>(std::min<std::int64_t>(kernels_.tile_columns(), width - j));
      tile.b = source + j;
      tile.c = sums + met.begin * p_.outputs * pitch_ + j;
      const std::int64_t rows = (met.end - met.begin) * p_.outputs;
      kernels_.column_tiles[kernels_.index(rows, tile.columns, kernels_.vector)](tile);
    }
  }

  // Adds the sums of row m to its totals and starts anew.
  void end_block(std::int64_t m, const Scratch& s) const {
    const std::int64_t size = p_.outputs * pitch_;
    for (std::int64_t i = m * size; i < (m + 1) * size; ++i) s.totals[i] += s.sums[i], s.sums[i] = 0;
  }

  void store_rows(const Phase& phase, const Rows& rows, T* sums) const {
    const Correlation<T>& c = phase.problem;
    const std::int64_t channel = rows.group * c.outputs;
    for (std::int64_t m = 0; m < rows.count; ++m) {
      T* const row = sums + m * c.outputs * pitch_;
      for (std::int64_t o = 0; c.bias && o < c.outputs; ++o)
        for (std::int64_t j = 0; j < c.result_size.width; ++j)
          row[o * pitch_ + j] += c.bias[(channel + o) * c.bias_stride];
      if (c.activation != Activation::identity)
        kernels().gemm.template family<T>().finish(row, pitch_, static_cast<int>(c.outputs),
                                                   static_cast<int>(c.result_size.width), nullptr,
                                                   c.activation);
      kernels_.copy(
          c.result.at(rows.image, rows.first + m * phase.distance(), 0) + channel * c.result.channel,
          c.result.channel, c.result.column, row, pitch_, 1, c.outputs, c.result_size.width);
    }
  }

  const Correlation<T>& p_;  // the first; all have its source, groups and channels
  const ConvFamily<T>& kernels_;
  std::vector<Phase> phases_;
  Reach rows_, columns_;
  Extents most_{0, 0};
  std::int64_t weights_ = 0, width_ = 0, pitch_ = 0, plane_ = 0;
};

// Pixels fill vectors better than channels; products and depthwise convolutions have paths of their own.
template <class T>
bool worthwhile(const Correlation<T>& c) {
  const std::int64_t vector = kernels().conv.family<T>().vector, pixels = c.result_size.width;
  const auto filled = [&](std::int64_t n) {
    return static_cast<double>(n) / static_cast<double>(ceil_div(n, vector) * vector);
  };
  if (c.outputs == 1 ? c.groups > 1 && c.inputs == 1 : c.taps.count() == 1) return false;
  return 2 * c.outputs <= vector && c.outputs <= kernels().conv.family<T>().tile_rows &&
         filled(pixels) >= 2 * filled(c.outputs) && c.step.height == 1 && c.step.width == 1;
}

}  // namespace

template <class T>
bool correlate_planes(const std::vector<Correlation<T>>& problems) {
  if (problems.empty() || !worthwhile(problems.front())) return false;
  PlaneCorrelator<T>(problems).run();
  return true;
}
template bool correlate_planes(const std::vector<Correlation<float>>&);
template bool correlate_planes(const std::vector<Correlation<double>>&);

}  // namespace thalweg
