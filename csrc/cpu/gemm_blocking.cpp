#include "cpu/gemm_blocking.h"

#include <algorithm>

#include "base/parallel.h"

namespace thalweg {
namespace {

constexpr std::int64_t kRowBytes = 256 << 10;    // of a block of A, for one thread: stays in L2
constexpr std::int64_t kColumns = 3072;          // of a block of B, shared: stays in L3
constexpr std::int64_t kDirectBytes = 1 << 20;   // of B, larger ones are packed
constexpr std::int64_t kAliasBytes = 2048;       // rows this far apart share few sets of L1
constexpr std::int64_t kApartBytes = 128 << 10;  // of a block of B, for one thread
constexpr std::int64_t kSplitPanels = 4;         // fewer columns than that many panels: K gives the tasks

}  // namespace

template <class T>
Blocking choose_blocking(const GemmProblem& p, const GemmFamily<T>& kernels) {
  Blocking blocking{};
  blocking.depths = std::max<std::int64_t>(1, ceil_div(p.k, kDepth<T>));
  blocking.depth = ceil_div(p.k, blocking.depths);
  const auto item = static_cast<std::int64_t>(sizeof(T));
  const std::int64_t height = kernels.tile_rows, width = kernels.tile_columns;
  const std::int64_t most = std::max(height, kRowBytes / item / kDepth<T>);
  std::int64_t row_blocks = ceil_div(p.m, most);
  if (row_blocks > 1)  // as many for each thread
    row_blocks = std::min(round_up(row_blocks, num_threads()), 2 * row_blocks);
  blocking.rows =
      ceil_div(p.m, row_blocks);  // tiles are cut to fit: whole ones would leave the last block short
  blocking.columns = std::min(round_up(p.n, width), kColumns);
  // Measured on Zen 4, 64 … 2048: reading in place wins unless rows of A fall into the same sets of
  // L1 again and again, or B is too large to stay in L2 and is read often.
  blocking.pack_a = p.a.row != 0 && p.a.row * item % kAliasBytes == 0 && p.n > 2 * width;
  blocking.strip = p.m <= kernels.strip_rows && p.b.row == 1 && p.b.col != 1;
  blocking.pack_b = p.b.col != 1 || (p.m > 4 * height && p.n * blocking.depth * item > kDirectBytes);
  // B that is used but a few times stays in L2 between packing and use.
  blocking.apart = p.b.col != 1 && p.m <= 4 * height && !blocking.strip;
  if (blocking.apart) {
    const std::int64_t panels = kApartBytes / (item * width * std::max<std::int64_t>(1, blocking.depth));
    blocking.columns = std::min(blocking.columns, width * std::max<std::int64_t>(1, panels));
  }
  blocking.pack_b = blocking.pack_b && !blocking.strip;
  blocking.scatter_c = p.c.col != 1;
  // The bits are the same: a single thread had better keep its sums in C.
  blocking.split = num_threads() > 1 && blocking.depths > 1 && p.batches() == 1 && p.m <= blocking.rows &&
                   p.n <= std::min(kSplitPanels * width, blocking.columns);
  return blocking;
}

template Blocking choose_blocking(const GemmProblem&, const GemmFamily<float>&);
template Blocking choose_blocking(const GemmProblem&, const GemmFamily<double>&);

}  // namespace thalweg
