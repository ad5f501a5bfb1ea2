// Matrix products of bfloat16 parts, summed in float32: AMX tiles, or AVX512_BF16's pair products.
//
// Packed layouts, in 16-bit words, depth padded to 32 with zeros:
//   A  slab of 32 k after slab, each one row after row: [k / 32][row][32]. Sixteen rows of a slab are an
//      AMX tile of 1 KiB.
//   B  panel of 32 columns after panel, each one slab after slab, each of two tiles of 16 columns in
//      pairs along k: [panel][k / 32][column / 16][k / 2 % 16][column % 16][k % 2].
// A float32 operand has one to three such planes, one for each part of the split (rules/split.h).
#pragma once

#include <cstdint>

#include "rules/split.h"

namespace thalweg {

inline constexpr std::int64_t kTileDepth = 32;   // of k in a slab
inline constexpr std::int64_t kTileLines = 16;   // rows of A or columns of B in a tile
inline constexpr std::int64_t kTileWords = 512;  // 1 KiB
inline constexpr std::int64_t kPanelColumns = 32;
inline constexpr std::int64_t kPackLines = 64;  // packed by one call at most

// Where a slab of A begins, and the k in it that are not padding.
struct Bf16Slab {
  std::int64_t a, depth;
};

// C[i, j] = (accumulate ? C[i, j] : 0) + sum over blocks of k of sum_k A[i, k] B[k, j].
// 32 columns of C are written (16, if `columns` is no more), and `rows` rows.
struct Bf16Tile {
  const std::uint16_t* a;  // first row, first slab
  std::int64_t a_slab, a_part;
  std::int64_t a_row;     // of a slab: kTileDepth where rows follow each other
  const Bf16Slab* slabs;  // where they are not evenly spaced, else null
  const std::uint16_t* b;
  std::int64_t b_part;
  float* c;
  std::int64_t c_row;
  std::int64_t k;
  int rows;
  int columns;
  bool accumulate;

  const std::uint16_t* a_at(std::int64_t slab) const { return a + (slabs ? slabs[slab].a : slab * a_slab); }
};

// Up to 64 lines (rows of A, columns of B) and where their tiles begin, 16 lines each.
struct Bf16Source {
  const void* data;
  std::int64_t line, k;  // strides in elements
  std::int64_t lines, depth;
  std::uint16_t* tiles[kPackLines / kTileLines];
  std::int64_t slab, part;  // words from tile to tile and from part to part
};

struct Bf16Kernels {
  const char* name = nullptr;  // null: this CPU has none
  int rows = 0;                // of C in a tile at most
  int row_step = 1;            // tiles begin at multiples of it
  bool split = false;          // three and six products beat multiply-adds
  void (*begin)() = nullptr;   // around the tiles of a thread
  void (*end)() = nullptr;

  using TileFunction = void (*)(const Bf16Tile&);
  TileFunction tiles[4] = {};  // by parts: 1, 3 or 6 products
  TileFunction tile(int parts) const { return tiles[parts]; }

  // seen: the magnitudes of each 16 lines.
  using PackFunction = void (*)(const Bf16Source& source, Magnitudes* seen);
  PackFunction pack_a[4] = {}, pack_b[4] = {};  // by parts; 0: bfloat16 operands, copied

  // Rows of floats to rows of bfloat16, which are contiguous.
  void (*narrow)(const float* from, std::int64_t from_row, std::uint16_t* to, std::int64_t to_row,
                 std::int64_t rows, std::int64_t columns) = nullptr;
};

// Around the tiles of a thread.
class TileScope {
 public:
  explicit TileScope(const Bf16Kernels& kernels) : end_(kernels.end) { kernels.begin(); }
  ~TileScope() { end_(); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  void (*end_)();
};

}  // namespace thalweg
