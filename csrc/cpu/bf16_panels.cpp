#include "cpu/bf16_panels.h"

#include <algorithm>

#include "base/integer.h"
#include "base/parallel.h"

namespace thalweg {
namespace {

constexpr std::int64_t kPackDepth = 512;  // of a packing task
constexpr std::int64_t kAliasRows = 64;   // slabs of so many rows share few sets of a cache

std::size_t aligned(std::size_t bytes) { return (bytes + 63) / 64 * 64; }

// Lines first … first + 63 of one operand over a block of depth.
void pack_lines(const GemmProblem& p, const Bf16Kernels& kernels, const Bf16Plan& plan,
                const Bf16Block& block, const Section& section, bool is_a, std::int64_t first,
                std::int64_t depth_block) {
  const Bf16Panels& panels = is_a ? block.a : block.b;
  const GemmProblem::Operand& x = is_a ? p.a : p.b;
  const std::int64_t k = depth_block * kPackDepth, line = (is_a ? block.row : block.column) + first;
  Bf16Source source{};
  source.line = is_a ? x.row : x.col;
  source.k = is_a ? x.col : x.row;
  source.lines = std::min(kPackLines, (is_a ? block.rows : block.columns) - first);
  source.depth = std::min(kPackDepth, section.depth - k);
  const std::int64_t offset =
      p.batch_offset(x, block.index) + line * source.line + (section.k + k) * source.k;
  source.data = static_cast<const std::byte*>(x.data) + offset * size_of(p.dtype);
  source.slab = is_a ? plan.a_slab() : 2 * kTileWords;
  source.part = is_a ? plan.a_part() : plan.b_part();
  const std::int64_t group = first / kTileLines, groups = ceil_div(source.lines, kTileLines);
  for (std::int64_t i = group; i < group + groups; ++i)
    source.tiles[i - group] = panels.words + k / kTileDepth * source.slab +
                              (is_a ? i * kTileWords : i / 2 * plan.b_panel() + i % 2 * kTileWords);
  Magnitudes seen[kPackLines / kTileLines];
  (is_a ? kernels.pack_a : kernels.pack_b)[plan.parts](source, seen);
  for (std::int64_t i = 0; i < groups; ++i)
    panels.seen[(group + i) * plan.depth_blocks + depth_block] = seen[i];
}

}  // namespace

Bf16Plan::Bf16Plan(const GemmProblem& p, int parts_of_an_operand)
    : parts(parts_of_an_operand), planes(std::max(parts, 1)) {
  const std::int64_t rows = std::min(p.m, kRows), depth = std::min(p.k, kSection);
  slabs = ceil_div(depth, kTileDepth);
  a_rows = ceil_div(rows, kTileLines) * kTileLines;
  if (a_rows % kAliasRows == 0) a_rows += kTileLines;
  panels = ceil_div(std::min(p.n, kColumns), kPanelColumns);
  depth_blocks = ceil_div(depth, kPackDepth);
  sums = p.k > kSection && (p.accumulate || p.c_dtype == DType::bf16 || p.c.col != 1);
  a_bytes = aligned(static_cast<std::size_t>(planes * a_part()) * sizeof(std::uint16_t));
  b_bytes = aligned(static_cast<std::size_t>(panels * b_panel()) * sizeof(std::uint16_t));
  const std::int64_t ranges = (row_groups() + column_groups()) * (depth_blocks + 1);
  range_bytes = aligned(static_cast<std::size_t>(ranges) * sizeof(Magnitudes));
  sum_bytes = sums ? static_cast<std::size_t>(rows * panels * kPanelColumns) * sizeof(float) : 0;
}

Bf16Block place(const Bf16Plan& plan, std::byte* memory) {
  Bf16Block block{};
  block.a.words = reinterpret_cast<std::uint16_t*>(memory);
  block.b.words = reinterpret_cast<std::uint16_t*>(memory + plan.a_bytes);
  block.a.range = reinterpret_cast<Magnitudes*>(memory + plan.a_bytes + plan.b_bytes);
  block.b.range = block.a.range + plan.row_groups();
  block.a.seen = block.b.range + plan.column_groups();
  block.b.seen = block.a.seen + plan.row_groups() * plan.depth_blocks;
  block.sums = reinterpret_cast<float*>(memory + plan.a_bytes + plan.b_bytes + plan.range_bytes);
  return block;
}

void pack(const GemmProblem& problem, const Bf16Kernels& kernels, const Bf16Plan& plan,
          const Bf16Block& block, const Section& section) {
  const std::int64_t depth_blocks = ceil_div(section.depth, kPackDepth);
  const std::int64_t a_tasks = ceil_div(block.rows, kPackLines) * depth_blocks;
  const std::int64_t b_tasks = ceil_div(block.columns, kPackLines) * depth_blocks;
  parallel_for(a_tasks + b_tasks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t task = begin; task < end; ++task) {
      const bool is_a = task < a_tasks;
      const std::int64_t at = is_a ? task : task - a_tasks;
      pack_lines(problem, kernels, plan, block, section, is_a, at / depth_blocks * kPackLines,
                 at % depth_blocks);
    }
  });
  for (const Bf16Panels& panels : {block.a, block.b})
    for (std::int64_t group = 0; group < panels.groups; ++group) {
      Magnitudes all = section.first ? Magnitudes{} : panels.range[group];
      for (std::int64_t i = 0; i < depth_blocks; ++i) all.merge(panels.seen[group * plan.depth_blocks + i]);
      panels.range[group] = all;
    }
}

}  // namespace thalweg
