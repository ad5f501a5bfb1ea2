#include "cpu/gemm_blocked.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "base/parallel.h"
#include "cpu/gemm_blocking.h"
#include "cpu/gemm_product.h"
#include "cpu/gemm_workspace.h"
#include "cpu/isa.h"

namespace thalweg {
namespace {

constexpr double kTaskFlops = kGemmTaskFlops;
constexpr std::int64_t kWindow = 1 << 20;  // elements that wait to be added

// Slot of a thread: packed A, then one tile of C.
template <class T>
struct Scratch {
  T* a;
  T* tile;
};

template <class T>
class Gemm {
 public:
  explicit Gemm(const GemmProblem& problem)
      : problem_(problem),
        kernels_(kernels().gemm.family<T>()),
        blocking_(choose_blocking(problem, kernels_)) {}

  void run() {
    thread_local GemmWorkspace workspace;
    workspace_ = &workspace;
    if (blocking_.split) return run_split();
    const std::int64_t column_blocks = ceil_div(problem_.n, blocking_.columns);
    const std::int64_t batches = problem_.batches();
    const double flops = 2.0 * static_cast<double>(std::max<std::int64_t>(problem_.m, 8)) *
                         static_cast<double>(std::min(problem_.n, blocking_.columns)) *
                         static_cast<double>(std::max<std::int64_t>(problem_.k, 1));
    const bool apart =
        blocking_.apart || (batches > 1 && (batches >= 4 * num_threads() || flops < 8 * kTaskFlops));
    reserve(apart, 0);
    T* const shared = reinterpret_cast<T*>(workspace.shared());
    bias_ = gather_bias(shared);
    if (!apart) {
      for (std::int64_t i = 0; i < batches * column_blocks; ++i)
        multiply(product(i / column_blocks), i % column_blocks, shared + bias_elements(), nullptr);
      return;
    }
    const auto grain = static_cast<std::int64_t>(std::max(1.0, kTaskFlops / flops));
    parallel_for(batches * column_blocks, grain, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(*workspace_);  // the caller's, whichever thread runs this
      const Scratch<T> scratch = scratch_of(slot);
      T* const b = scratch.tile + tile_elements();
      for (std::int64_t i = begin; i < end; ++i)
        multiply(product(i / column_blocks), i % column_blocks, b, &scratch);
    });
  }

 private:
  // Blocks of K side by side, each into its own matrix of sums; those are added in order. A window of
  // blocks at a time: K may be long.
  void run_split() {
    const std::int64_t size = problem_.m * problem_.n, blocks = blocking_.depths;
    const std::int64_t window = std::clamp<std::int64_t>(kWindow / size, 1, blocks);
    reserve(true, size * (1 + window));
    T* const total = reinterpret_cast<T*>(workspace_->shared()) + bias_elements();
    bias_ = gather_bias(reinterpret_cast<T*>(workspace_->shared()));
    const Product<T> p = product(0);
    for (std::int64_t i = 0; p.accumulate && i < size; ++i) total[i] = *p.c.at(i / p.n, i % p.n);
    for (std::int64_t first = 0; first < blocks; first += window) {
      const std::int64_t count = std::min(window, blocks - first);
      multiply_apart(p, first, count, total + size);
      add_blocks(total, size, count, p.accumulate || first > 0);
    }
    if (p.bias || p.activation != Activation::identity)
      kernels_.finish(total, p.n, static_cast<int>(p.m), static_cast<int>(p.n), p.bias, p.activation);
    for (std::int64_t i = 0; i < size; ++i) *p.c.at(i / p.n, i % p.n) = total[i];
  }

  // Blocks first … first + count of K into `sums`, one matrix after the other.
  void multiply_apart(const Product<T>& p, std::int64_t first, std::int64_t count, T* sums) const {
    const std::int64_t size = p.m * p.n, depth = blocking_.depth;
    const std::int64_t width = kernels_.tile_columns, panels = ceil_div(p.n, width);
    // Few blocks would leave a thread without work at the end: each one in several groups of columns.
    const std::int64_t pieces = std::clamp<std::int64_t>(ceil_div(4 * num_threads(), count), 1, panels);
    const std::int64_t group = width * ceil_div(panels, pieces), groups = ceil_div(p.n, group);
    const double flops = 2.0 * static_cast<double>(std::max<std::int64_t>(size / groups, 8) * depth);
    const auto worthwhile = static_cast<std::int64_t>(std::max(1.0, kTaskFlops / flops));
    parallel_for(count * groups, worthwhile, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(*workspace_);
      const Scratch<T> scratch = scratch_of(slot);
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t i = task / groups, column = task % groups * group;
        multiply_blocks(block_of(p, first + i, sums + i * size), column, std::min(group, p.n - column), 0, 1,
                        scratch.tile + tile_elements(), &scratch);
      }
    });
  }

  // total = (accumulate ? total : 0) + the matrices behind it, in order.
  static void add_blocks(T* total, std::int64_t size, std::int64_t count, bool accumulate) {
    if (!accumulate) std::copy_n(total + size, size, total);
    for (std::int64_t block = accumulate ? 1 : 2; block <= count; ++block) {
      const T* const sums = total + block * size;
      for (std::int64_t i = 0; i < size; ++i) total[i] += sums[i];
    }
  }

  // One block of K as a product of its own.
  Product<T> block_of(const Product<T>& p, std::int64_t block, T* sums) const {
    const std::int64_t k = block * blocking_.depth;
    Product<T> part = p;
    part.k = std::min(blocking_.depth, p.k - k);
    part.a.data = p.a.at(0, k);
    part.b.data = p.b.at(k, 0);
    part.c = {sums, p.n, 1};
    part.accumulate = false;
    return part;
  }

  std::int64_t tile_elements() const { return kernels_.tile_rows * kernels_.widest[0]; }
  std::int64_t a_elements() const {
    return blocking_.pack_a ? round_up(blocking_.rows, kernels_.tile_rows) * blocking_.depth : 0;
  }
  std::int64_t b_elements() const { return blocking_.pack_b ? blocking_.columns * blocking_.depth : 0; }

  std::int64_t bias_elements() const {  // that need a contiguous copy
    return problem_.bias && problem_.bias_stride != 1 ? round_up(problem_.n, kernels_.tile_columns) : 0;
  }

  const T* gather_bias(T* copy) const {
    const T* bias = static_cast<const T*>(problem_.bias);
    if (bias_elements() == 0) return bias;
    for (std::int64_t j = 0; j < problem_.n; ++j) copy[j] = bias[j * problem_.bias_stride];
    return copy;
  }

  void reserve(bool by_batch, std::int64_t sums) {
    const auto bytes = [](std::int64_t elements) { return static_cast<std::size_t>(elements) * sizeof(T); };
    workspace_->reserve(bytes(bias_elements() + sums + (by_batch ? 0 : b_elements())),
                        bytes(a_elements() + tile_elements() + (by_batch ? b_elements() : 0)), num_threads());
  }

  Scratch<T> scratch_of(const GemmWorkspace::Slot& slot) const {
    T* const data = reinterpret_cast<T*>(slot.data());
    return {data, data + a_elements()};
  }

  Product<T> product(std::int64_t index) const { return product_at<T>(problem_, index, bias_); }

  // One block of columns. `packed_b` has room for a block of B. With `scratch` this thread works alone.
  void multiply(const Product<T>& p, std::int64_t column_block, T* packed_b,
                const Scratch<T>* scratch) const {
    const std::int64_t column = column_block * blocking_.columns;
    const std::int64_t columns = std::min(blocking_.columns, p.n - column);
    if (!blocking_.pack_a && !blocking_.pack_b && p.m <= blocking_.rows)
      return multiply_blocks(p, column, columns, 0, blocking_.depths, packed_b, scratch);
    for (std::int64_t block = 0; block < blocking_.depths; ++block)
      multiply_blocks(p, column, columns, block, block + 1, packed_b, scratch);
  }

  // Blocks block … end of K: one, if an operand is packed.
  void multiply_blocks(const Product<T>& p, std::int64_t column, std::int64_t columns, std::int64_t block,
                       std::int64_t end_block, T* packed_b, const Scratch<T>* scratch) const {
    const std::int64_t k = block * blocking_.depth, depth = std::min(end_block * blocking_.depth, p.k) - k;
    const std::int64_t width = kernels_.tile_columns, panels = ceil_div(columns, width);
    if (blocking_.pack_b)
      parallel_for(panels, std::max<std::int64_t>(1, (1 << 14) / std::max<std::int64_t>(1, depth * width)),
                   [&](std::int64_t begin, std::int64_t end) {
                     kernels_.pack_b(packed_b + begin * width * depth, p.b.at(k, column + begin * width),
                                     p.b.col, p.b.row, std::min(columns, end * width) - begin * width, depth);
                   });
    const std::int64_t row_blocks = ceil_div(p.m, blocking_.rows);
    const std::int64_t group = scratch ? columns : group_columns(row_blocks, columns, depth);
    const std::int64_t groups = ceil_div(columns, group);
    // With a scratch of its own the caller does all tasks itself, also where no thread runs beside it.
    const std::int64_t tasks = row_blocks * groups;
    parallel_for(tasks, scratch ? tasks : 1, [&](std::int64_t begin, std::int64_t end) {
      std::optional<GemmWorkspace::Slot> slot;
      const Scratch<T> own = scratch ? *scratch : scratch_of(slot.emplace(*workspace_));
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t row = task / groups * blocking_.rows, rows = std::min(blocking_.rows, p.m - row);
        const std::int64_t first = task % groups * group, count = std::min(group, columns - first);
        if (blocking_.pack_a && (task == begin || first == 0)) pack_rows(p, row, rows, k, depth, own.a);
        multiply_rows(p, row, rows, column + first, count, block, end_block,
                      blocking_.pack_b ? packed_b + first * depth : nullptr, own);
      }
    });
  }

  // A panel for each tile.
  void pack_rows(const Product<T>& p, std::int64_t row, std::int64_t rows, std::int64_t k, std::int64_t depth,
                 T* panel) const {
    const RowCut cut(rows, kernels_.tile_rows);
    for (std::int64_t i = 0; i < rows; i += cut.height(i), panel += kernels_.tile_rows * depth)
      kernels_.pack_a(panel, p.a.at(row + i, k), p.a.row, p.a.col, cut.height(i), depth);
  }

  // Columns of one task: as few as give each thread some tasks, as many as make a task worthwhile.
  std::int64_t group_columns(std::int64_t row_blocks, std::int64_t columns, std::int64_t depth) const {
    const std::int64_t width = kernels_.tile_columns, panels = ceil_div(columns, width);
    const double flops = 2.0 * static_cast<double>(std::clamp<std::int64_t>(problem_.m, 8, blocking_.rows)) *
                         static_cast<double>(width) * static_cast<double>(std::max<std::int64_t>(depth, 1));
    const auto worthwhile = static_cast<std::int64_t>(std::ceil(kTaskFlops / flops));
    // Every group packs its rows of A once more.
    const std::int64_t tasks = (blocking_.pack_a ? 2 : 4) * num_threads();
    const std::int64_t fair = ceil_div(panels * row_blocks, tasks);
    const std::int64_t most = std::clamp<std::int64_t>(std::max(fair, worthwhile), 1, panels);
    return width * ceil_div(panels, ceil_div(panels, most));
  }

  // C[row : row + rows, column : column + columns] from blocks block … end of K.
  void multiply_rows(const Product<T>& p, std::int64_t row, std::int64_t rows, std::int64_t column,
                     std::int64_t columns, std::int64_t block, std::int64_t end_block, const T* packed_b,
                     const Scratch<T>& scratch) const {
    const std::int64_t panel = kernels_.tile_columns, height = kernels_.tile_rows;
    const std::int64_t width =
        blocking_.pack_b || blocking_.strip ? panel : kernels_.widest[std::min(rows, height) - 1];
    for (std::int64_t at = block; at < end_block; ++at)
      for (std::int64_t j = 0; j < columns; j += width) {
        const std::int64_t k = at * blocking_.depth;
        GemmTile<T> tile;
        tile.k = std::min(blocking_.depth, p.k - k);
        tile.accumulate = p.accumulate || at > 0;
        tile.columns = static_cast<int>(std::min(width, columns - j));
        tile.b = blocking_.pack_b ? packed_b + j * tile.k : p.b.at(k, column + j);
        tile.b_row = blocking_.pack_b ? panel : p.b.row;
        tile.b_col = p.b.col;
        multiply_column(p, row, rows, column + j, at, tile, scratch);
      }
  }

  // The tiles of one panel of B.
  void multiply_column(const Product<T>& p, std::int64_t row, std::int64_t rows, std::int64_t column,
                       std::int64_t block, GemmTile<T>& tile, const Scratch<T>& scratch) const {
    const std::int64_t k = block * blocking_.depth, height = kernels_.tile_rows;
    const bool last = block == blocking_.depths - 1;
    const RowCut cut(rows, height);
    const T* panel = scratch.a;
    for (std::int64_t i = 0; i < rows; panel += height * tile.k) {
      const int tile_rows = cut.height(i);
      tile.a = blocking_.pack_a ? panel : p.a.at(row + i, k);
      tile.a_row = blocking_.pack_a ? 1 : p.a.row;
      tile.a_col = blocking_.pack_a ? height : p.a.col;
      const GemmOperand<T> c{p.c.at(row + i, column), p.c.row, p.c.col};
      const T* bias = p.bias ? p.bias + column : nullptr;
      run_tile(tile, tile_rows, c, last, bias, p.activation, scratch.tile);
      i += tile_rows;
    }
  }

  void run_tile(GemmTile<T>& tile, int rows, const GemmOperand<T>& c, bool last, const T* bias,
                Activation activation, T* buffer) const {
    tile.c = blocking_.scatter_c ? buffer : c.data;
    tile.c_row = blocking_.scatter_c ? kernels_.widest[0] : c.row;
    if (blocking_.scatter_c && tile.accumulate)
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < tile.columns; ++j) tile.c[i * tile.c_row + j] = *c.at(i, j);
    const auto multiply =
        blocking_.strip ? kernels_.strips[rows - 1] : kernels_.tile(rows, tile.columns, tile.a_row == 1);
    multiply(tile);
    if (last && (bias || activation != Activation::identity))
      kernels_.finish(tile.c, tile.c_row, rows, tile.columns, bias, activation);
    if (blocking_.scatter_c)
      for (int i = 0; i < rows; ++i)
        for (int j = 0; j < tile.columns; ++j) *c.at(i, j) = tile.c[i * tile.c_row + j];
  }

  const GemmProblem& problem_;
  const GemmFamily<T>& kernels_;
  const Blocking blocking_;
  GemmWorkspace* workspace_ = nullptr;
  const T* bias_ = nullptr;
};

}  // namespace

template <class T>
void multiply_blocked(const GemmProblem& p) {
  Gemm<T>(p).run();
}

template void multiply_blocked<float>(const GemmProblem&);
template void multiply_blocked<double>(const GemmProblem&);

}  // namespace thalweg
