#include "cpu/gemm_split.h"

#include <algorithm>

#include "base/half.h"
#include "base/integer.h"
#include "base/parallel.h"
#include "cpu/bf16_panels.h"
#include "cpu/gemm_widen.h"
#include "cpu/gemm_workspace.h"
#include "cpu/isa.h"

namespace thalweg {
namespace {

constexpr std::int64_t kGroupBytes = 512 << 10;  // of packed A under a task: stays in L2
constexpr double kTaskFlops = 1.5e6;
constexpr double kAloneFlops = 5e7;  // smaller products of a batch are not shared out

class SplitGemm {
 public:
  SplitGemm(const GemmProblem& problem, const Bf16Kernels& kernels, int parts, bool keep_tiny)
      : p_(problem),
        kernels_(kernels),
        keep_tiny_(keep_tiny),
        plan_(problem, parts),
        multiply_(kernels.tile(plan_.planes)) {}

  void run() {
    thread_local GemmWorkspace of_thread;
    GemmWorkspace& workspace = of_thread;  // the caller's, whichever thread runs what follows
    const double flops =
        2.0 * static_cast<double>(p_.m) * static_cast<double>(p_.n) * static_cast<double>(p_.k);
    const std::int64_t batches = p_.batches();
    const bool alone = batches > 1 && flops < kAloneFlops;
    const std::size_t bias_bytes =
        gathers_bias() ? round_up_64(static_cast<std::size_t>(p_.n) * sizeof(float)) : 0;
    workspace.reserve(bias_bytes + (alone ? 0 : plan_.bytes()), alone ? plan_.bytes() : 0, num_threads());
    gather_bias(reinterpret_cast<float*>(workspace.shared()));
    if (!alone) {
      for (std::int64_t i = 0; i < batches; ++i) multiply(i, workspace.shared() + bias_bytes);
      return;
    }
    const auto grain = static_cast<std::int64_t>(std::max(1.0, kTaskFlops / flops));
    parallel_for(batches, grain, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(workspace);
      for (std::int64_t i = begin; i < end; ++i) multiply(i, slot.data());
    });
  }

 private:
  static std::size_t round_up_64(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

  bool gathers_bias() const {
    return p_.bias && (p_.bias_stride != 1 || (p_.dtype == DType::bf16 && p_.bias_dtype == DType::bf16));
  }

  void gather_bias(float* copy) {
    bias_ = static_cast<const float*>(p_.bias);
    if (!gathers_bias()) return;
    bias_ = copy;
    const bool narrow = p_.dtype == DType::bf16 && p_.bias_dtype == DType::bf16;
    for (std::int64_t j = 0; j < p_.n; ++j)
      copy[j] = narrow ? Bfloat16::widen(static_cast<const std::uint16_t*>(p_.bias)[j * p_.bias_stride])
                       : static_cast<const float*>(p_.bias)[j * p_.bias_stride];
  }

  std::int64_t c_size() const {
    return p_.dtype == DType::bf16 && p_.c_dtype == DType::bf16 ? 2
                                                                : static_cast<std::int64_t>(sizeof(float));
  }
  bool narrow_c() const { return c_size() == 2; }

  // One product of the batch.
  void multiply(std::int64_t index, std::byte* memory) const {
    for (std::int64_t column = 0; column < p_.n; column += kColumns)
      for (std::int64_t row = 0; row < p_.m; row += kRows) {
        Bf16Block block = place(plan_, memory);
        block.index = index;
        block.row = row, block.rows = std::min(kRows, p_.m - row);
        block.column = column, block.columns = std::min(kColumns, p_.n - column);
        block.a.groups = ceil_div(block.rows, kTileLines);
        block.b.groups = ceil_div(block.columns, kTileLines);
        const std::int64_t tiles = ceil_div(block.rows, kernels_.rows);  // as high as each other
        block.tile_rows = round_up(ceil_div(block.rows, tiles), kernels_.row_step);
        for (std::int64_t k = 0; k < p_.k; k += kSection) {
          const Section section{k, std::min(kSection, p_.k - k), k == 0, k + kSection >= p_.k};
          pack(p_, kernels_, plan_, block, section);
          multiply_tiles(block, section);
        }
      }
  }

  // --- tiles ----------------------------------------------------------------------------------

  void multiply_tiles(const Bf16Block& block, const Section& section) const {
    const std::int64_t tiles = ceil_div(block.rows, block.tile_rows),
                       panels = ceil_div(block.columns, kPanelColumns);
    const std::int64_t tile_bytes = block.tile_rows * section.depth * 2 * plan_.planes;
    const std::int64_t group = std::clamp<std::int64_t>(kGroupBytes / tile_bytes, 1, tiles);
    const double flops = 2.0 * static_cast<double>(group * block.tile_rows * kPanelColumns * section.depth);
    const auto chunk = std::clamp(static_cast<std::int64_t>(kTaskFlops / flops), std::int64_t{1}, panels);
    const std::int64_t chunks = ceil_div(panels, chunk);
    parallel_for(ceil_div(tiles, group) * chunks, 1, [&](std::int64_t begin, std::int64_t end) {
      const TileScope scope(kernels_);
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t tile = task / chunks * group, panel = task % chunks * chunk;
        multiply_task(block, section, tile, std::min(tiles, tile + group), panel,
                      std::min(panels, panel + chunk));
      }
    });
  }

  void multiply_task(const Bf16Block& block, const Section& section, std::int64_t tile,
                     std::int64_t last_tile, std::int64_t panel, std::int64_t last_panel) const {
    for (std::int64_t j = panel; j < last_panel; ++j)
      for (std::int64_t i = tile; i < last_tile; ++i)
        if (is_safe(block, i, j)) multiply_tile(block, section, i * block.tile_rows, j * kPanelColumns);
    if (!section.last) return;
    for (std::int64_t i = tile; i < last_tile; ++i)
      for (std::int64_t j = panel; j < last_panel; ++j) {
        std::int64_t end = j;
        while (end < last_panel && !is_safe(block, i, end)) ++end;
        if (end > j) multiply_exactly(block, i, j, end);
        j = end;
      }
  }

  bool is_safe(const Bf16Block& block, std::int64_t tile, std::int64_t panel) const {
    const std::int64_t row = tile * block.tile_rows, end = std::min(block.rows, row + block.tile_rows);
    Magnitudes a, b = block.b.range[2 * panel];
    for (std::int64_t group = row / kTileLines; group < ceil_div(end, kTileLines); ++group)
      a.merge(block.a.range[group]);
    if (2 * panel + 1 < block.b.groups) b.merge(block.b.range[2 * panel + 1]);
    return splits_safely(a, b, p_.k, keep_tiny_);
  }

  // The operands of a tile; where its sums go is still open.
  Bf16Tile tile_of(const Bf16Block& block, const Section& section, std::int64_t row,
                   std::int64_t column) const {
    Bf16Tile t{};
    t.a = block.a.words + row * kTileDepth;
    t.a_slab = plan_.a_slab(), t.a_part = plan_.a_part();
    t.a_row = kTileDepth;
    t.b = block.b.words + column / kPanelColumns * plan_.b_panel();
    t.b_part = plan_.b_part();
    t.k = section.depth;
    t.rows = static_cast<int>(std::min(block.tile_rows, block.rows - row));
    t.columns = static_cast<int>(std::min(kPanelColumns, block.columns - column));
    return t;
  }

  void multiply_tile(const Bf16Block& block, const Section& section, std::int64_t row,
                     std::int64_t column) const {
    alignas(64) float buffer[32 * kPanelColumns];
    Bf16Tile t = tile_of(block, section, row, column);
    std::byte* const c = c_at(block.index, block.row + row, block.column + column);
    const bool whole = t.columns == 32 || t.columns == 16;
    const bool direct = whole && !plan_.sums && p_.c.col == 1 && !narrow_c();
    const bool onto_c = p_.accumulate || !section.first;
    if (plan_.sums) {
      t.c_row = plan_.panels * kPanelColumns;
      t.c = block.sums + row * t.c_row + column;
      t.accumulate = !section.first;
    } else {
      t.c_row = direct ? p_.c.row : kPanelColumns;
      t.c = direct ? reinterpret_cast<float*>(c) : buffer;
      t.accumulate = direct && onto_c;
    }
    if (section.last) prefetch_c(t, c);
    multiply_(t);
    if (plan_.sums && !section.last) return;
    if (!direct && (plan_.sums ? p_.accumulate : onto_c)) add_c(t, c);
    if (section.last && (bias_ || p_.activation != Activation::identity))
      kernels().gemm.f32.finish(t.c, t.c_row, t.rows, t.columns,
                                bias_ ? bias_ + block.column + column : nullptr, p_.activation);
    if (!direct) store_c(t, c);
  }

  // C is written hundreds of cycles of products from here, and is seldom in cache.
  void prefetch_c(const Bf16Tile& t, const std::byte* c) const {
    if (p_.c.col != 1) return;
    for (int i = 0; i < t.rows; ++i)
      for (std::int64_t at = 0; at < t.columns * c_size(); at += 64)
        __builtin_prefetch(c + i * p_.c.row * c_size() + at, 1);
  }

  std::byte* c_at(std::int64_t index, std::int64_t row, std::int64_t column) const {
    const std::int64_t offset = p_.batch_offset(p_.c, index) + row * p_.c.row + column * p_.c.col;
    return static_cast<std::byte*>(p_.c.data) + offset * c_size();
  }

  // tile += C
  void add_c(const Bf16Tile& t, const std::byte* c) const {
    for (int i = 0; i < t.rows; ++i)
      for (int j = 0; j < t.columns; ++j) {
        const std::int64_t at = i * p_.c.row + j * p_.c.col;
        t.c[i * t.c_row + j] += narrow_c() ? Bfloat16::widen(reinterpret_cast<const std::uint16_t*>(c)[at])
                                           : reinterpret_cast<const float*>(c)[at];
      }
  }

  // C = tile
  void store_c(const Bf16Tile& t, std::byte* c) const {
    if (narrow_c() && p_.c.col == 1)
      return kernels_.narrow(t.c, t.c_row, reinterpret_cast<std::uint16_t*>(c), p_.c.row, t.rows, t.columns);
    for (int i = 0; i < t.rows; ++i)
      for (int j = 0; j < t.columns; ++j) {
        const std::int64_t at = i * p_.c.row + j * p_.c.col;
        const float x = t.c[i * t.c_row + j];
        if (narrow_c())
          reinterpret_cast<std::uint16_t*>(c)[at] = Bfloat16::narrow(x);
        else
          reinterpret_cast<float*>(c)[at] = x;
      }
  }

  // Rows of one tile and columns of panels … last_panel by multiply-adds, from the operands themselves.
  void multiply_exactly(const Bf16Block& block, std::int64_t tile, std::int64_t panel,
                        std::int64_t last_panel) const {
    const std::int64_t row = block.row + tile * block.tile_rows,
                       column = block.column + panel * kPanelColumns;
    const std::int64_t item = size_of(p_.dtype);
    GemmProblem part = p_;
    part.batch_rank = 0;
    part.m = std::min(block.tile_rows, block.row + block.rows - row);
    part.n = std::min((last_panel - panel) * kPanelColumns, block.column + block.columns - column);
    part.a.data =
        static_cast<std::byte*>(p_.a.data) + (p_.batch_offset(p_.a, block.index) + row * p_.a.row) * item;
    part.b.data =
        static_cast<std::byte*>(p_.b.data) + (p_.batch_offset(p_.b, block.index) + column * p_.b.col) * item;
    part.c.data = c_at(block.index, row, column);
    part.bias = bias_ ? bias_ + column : nullptr;
    part.bias_stride = 1;
    part.bias_dtype = DType::f32;
    p_.dtype == DType::bf16 ? gemm_widened(part) : gemm(part);
  }

  const GemmProblem& p_;
  const Bf16Kernels& kernels_;
  const bool keep_tiny_;
  const Bf16Plan plan_;
  const Bf16Kernels::TileFunction multiply_;
  const float* bias_ = nullptr;
};

// Batches of A on one B whose matrices follow each other are more rows of A.
GemmProblem folded(const GemmProblem& problem) {
  GemmProblem p = problem;
  while (p.batch_rank > 0) {
    const int i = p.batch_rank - 1;
    const bool one = p.batch[i] == 1;
    if (!one && (p.b.batch[i] != 0 || p.a.batch[i] != p.m * p.a.row || p.c.batch[i] != p.m * p.c.row)) break;
    p.m *= p.batch[i];
    --p.batch_rank;
  }
  return p;
}

}  // namespace

void gemm_split(const GemmProblem& problem, const Bf16Kernels& kernels, int products, bool keep_tiny) {
  const GemmProblem p = folded(problem);
  const int parts = p.dtype == DType::bf16 ? 0 : products == 6 ? 3 : products == 3 ? 2 : 1;
  SplitGemm(p, kernels, parts, keep_tiny).run();
}

}  // namespace thalweg
