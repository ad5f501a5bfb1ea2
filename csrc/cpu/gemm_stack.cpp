#include "cpu/gemm_stack.h"

#include <algorithm>
#include <optional>

#include "base/parallel.h"
#include "cpu/gemm_blocking.h"
#include "cpu/gemm_product.h"
#include "cpu/gemm_workspace.h"
#include "cpu/isa.h"

namespace thalweg {
namespace {

// The tiles of one product, listed once and run for each product of a stack.
template <class T>
class TileList {
 public:
  static constexpr int kMost = 64;

  TileList(const GemmProblem& p, const Blocking& blocking, const GemmFamily<T>& kernels)
      : packed_(blocking.pack_b) {
    const std::int64_t panel = kernels.tile_columns;
    const RowCut cut(p.m, kernels.tile_rows);
    const std::int64_t width = packed_ || blocking.strip ? panel : kernels.widest[cut.height(0) - 1];
    tile_ = {nullptr, p.a.row, p.a.col, nullptr,     packed_ ? panel : p.b.row, p.b.col, nullptr,
             p.c.row, p.k,     0,       p.accumulate};
    for (std::int64_t j = 0; j < p.n; j += width)
      for (std::int64_t i = 0; i < p.m; i += cut.height(i)) {
        if (++count_ > kMost) return;
        const int rows = cut.height(i), columns = static_cast<int>(std::min(width, p.n - j));
        const auto run =
            blocking.strip ? kernels.strips[rows - 1] : kernels.tile(rows, columns, p.a.row == 1);
        steps_[count_ - 1] = {run, i * p.a.row, packed_ ? j * p.k : j * p.b.col, i * p.c.row + j, columns};
      }
  }

  bool complete() const { return count_ <= kMost; }

  void run(const T* a, const T* b, T* c) const {
    GemmTile<T> tile = tile_;
    for (int i = 0; i < count_; ++i) {
      const Step& step = steps_[i];
      tile.a = a + step.a;
      tile.b = b + step.b;
      tile.c = c + step.c;
      tile.columns = step.columns;
      step.run(tile);
    }
  }

 private:
  struct Step {
    typename GemmFamily<T>::TileFunction run;
    std::int64_t a, b, c;  // where the tile begins
    int columns;
  };
  bool packed_;
  int count_ = 0;
  GemmTile<T> tile_;
  Step steps_[kMost];
};

template <class T>
void multiply_range(const GemmProblem& p, const GemmFamily<T>& kernels, const TileList<T>& tiles, T* packed,
                    std::int64_t begin, std::int64_t end) {
  const auto* bias = static_cast<const T*>(p.bias);
  const bool finish = bias || p.activation != Activation::identity;
  for (std::int64_t i = begin; i < end; ++i) {
    const Product<T> product = product_at<T>(p, i, bias);
    if (packed) kernels.pack_b(packed, product.b.data, p.b.col, p.b.row, p.n, p.k);
    tiles.run(product.a.data, packed ? packed : product.b.data, product.c.data);
    if (finish)
      kernels.finish(product.c.data, p.c.row, static_cast<int>(p.m), static_cast<int>(p.n), bias,
                     p.activation);
  }
}

}  // namespace

template <class T>
bool multiply_stack(const GemmProblem& p) {
  const std::int64_t batches = p.batches();
  const double flops =
      2.0 * static_cast<double>(p.m * p.n) * static_cast<double>(std::max<std::int64_t>(p.k, 1));
  // Larger ones than two tasks are shared out between threads, unless there are enough of them.
  if (p.k > kDepth<T> || p.m * p.n > 1 << 15) return false;
  if (flops > 2 * kGemmTaskFlops && batches < 4 * num_threads()) return false;
  if (p.c.col != 1 || (p.bias && p.bias_stride != 1)) return false;
  const GemmFamily<T>& kernels = thalweg::kernels().gemm.family<T>();
  const Blocking blocking = choose_blocking(p, kernels);
  if (blocking.pack_a || blocking.split || blocking.depths > 1 || blocking.columns < p.n) return false;
  const TileList<T> tiles(p, blocking, kernels);
  if (!tiles.complete()) return false;
  thread_local GemmWorkspace workspace;
  if (blocking.pack_b)
    workspace.reserve(0, static_cast<std::size_t>(blocking.columns * p.k) * sizeof(T), num_threads());
  GemmWorkspace& slots = workspace;  // the caller's, whichever thread runs a range
  const auto grain = static_cast<std::int64_t>(std::max(1.0, kGemmTaskFlops / flops));
  parallel_for(batches, grain, [&](std::int64_t begin, std::int64_t end) {
    std::optional<GemmWorkspace::Slot> slot;
    T* const packed = blocking.pack_b ? reinterpret_cast<T*>(slot.emplace(slots).data()) : nullptr;
    multiply_range(p, kernels, tiles, packed, begin, end);
  });
  return true;
}

template bool multiply_stack<float>(const GemmProblem&);
template bool multiply_stack<double>(const GemmProblem&);

}  // namespace thalweg
