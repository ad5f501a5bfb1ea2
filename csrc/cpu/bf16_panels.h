// Operands of bfloat16 products in panels: how much of them at a time, where in the workspace, and
// the packing, shared out between threads.
#pragma once

#include <cstddef>

#include "cpu/gemm.h"
#include "cpu/kernels/gemm_bf16.h"

namespace thalweg {

inline constexpr std::int64_t kSection = 2048;                // of K, packed at a time
inline constexpr std::int64_t kRows = 2048, kColumns = 2048;  // of C, likewise

// Extents of what is packed and multiplied at a time, and its sizes in the workspace.
struct Bf16Plan {
  std::int64_t slabs, a_rows, panels;  // padded
  std::int64_t depth_blocks;           // of packing
  int parts;                           // of an operand; 0: it is bfloat16
  int planes;
  bool sums;  // C cannot hold the sums of sections
  std::size_t a_bytes, b_bytes, range_bytes, sum_bytes;

  Bf16Plan(const GemmProblem& problem, int parts_of_an_operand);

  std::int64_t row_groups() const { return a_rows / kTileLines; }
  std::int64_t column_groups() const { return 2 * panels; }
  std::int64_t a_slab() const { return a_rows * kTileDepth; }
  std::int64_t a_part() const { return slabs * a_slab(); }
  std::int64_t b_part() const { return slabs * 2 * kTileWords; }
  std::int64_t b_panel() const { return planes * b_part(); }
  std::size_t bytes() const { return a_bytes + b_bytes + range_bytes + sum_bytes; }
};

// One operand of a block of C in the workspace.
struct Bf16Panels {
  std::uint16_t* words;
  Magnitudes* seen;   // [group of 16 lines][block of depth], of this section
  Magnitudes* range;  // [group], of all sections so far
  std::int64_t groups;
};

// Rows and columns of C that are computed together, with all of K.
struct Bf16Block {
  std::int64_t index;  // in the batch
  std::int64_t row, rows, column, columns;
  std::int64_t tile_rows;
  Bf16Panels a, b;
  float* sums;
};

struct Section {
  std::int64_t k, depth;
  bool first, last;
};

// A block without extents, its arrays in `memory`.
Bf16Block place(const Bf16Plan& plan, std::byte* memory);

// Both operands of a block over a section of K, and the magnitudes in them.
void pack(const GemmProblem& problem, const Bf16Kernels& kernels, const Bf16Plan& plan,
          const Bf16Block& block, const Section& section);

}  // namespace thalweg
