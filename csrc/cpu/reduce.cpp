#include "cpu/reduce.h"

#include <algorithm>

#include "base/parallel.h"
#include "base/scratch.h"
#include "base/tree.h"
#include "cpu/axes.h"
#include "cpu/isa.h"
#include "rules/reduce.h"

namespace thalweg::cpu {
namespace {

constexpr std::int64_t kGrainElements = 1 << 15;  // below this a second thread costs more than it gives

std::int64_t grain_for(std::int64_t elements_per_unit) {
  return std::max<std::int64_t>(1, kGrainElements / std::max<std::int64_t>(1, elements_per_unit));
}

// The tree runs over the reduced elements in logical (C) order, whatever their strides: block b of
// output o goes to partial[o * blocks + b]. Three ways to read a block, all with the same bits.
template <class T>
struct Reducer {
  const ReduceBlock<T>& kernel;
  const T* x;
  Axes kept, reduced;
  std::int64_t n = reduced.elements(), outputs = kept.elements(), blocks = tree_blocks(n);

  std::int64_t block_length(std::int64_t b) const { return std::min(kTreeBlock, n - b * kTreeBlock); }

  void rows(double* partial) const {
    const bool in_place = reduced.rank == 0 || (reduced.rank == 1 && reduced.inner_stride() == 1);
    parallel_for(outputs * blocks, grain_for(std::min(n, kTreeBlock)), [&](auto begin, auto end) {
      T buffer[kTreeBlock];
      for (std::int64_t unit = begin; unit < end; ++unit) {
        const std::int64_t b = unit % blocks, length = block_length(b);
        const T* base = x + kept.offset(unit / blocks);
        if (!in_place) gather(reduced, base, b * kTreeBlock, length, buffer);
        partial[unit] = kernel.row(in_place ? base + b * kTreeBlock : buffer, length);
      }
    });
  }

  bool has_columns() const {
    return reduced.rank == 1 && kept.rank > 0 && kept.inner_stride() == 1 && kept.inner_shape() >= 4;
  }

  void columns(double* partial) const {
    const std::int64_t width = kept.inner_shape(), stride = reduced.inner_stride();
    const std::int64_t tiles = (width + kReduceColumns - 1) / kReduceColumns;
    const std::int64_t tile_elements = std::min(n, kTreeBlock) * std::min(width, kReduceColumns);
    parallel_for(outputs / width * blocks * tiles, grain_for(tile_elements), [&](auto begin, auto end) {
      for (std::int64_t unit = begin; unit < end; ++unit) {
        const std::int64_t b = unit / tiles % blocks, c = unit % tiles * kReduceColumns;
        const std::int64_t o = unit / tiles / blocks * width + c;
        kernel.columns(x + kept.offset(o) + b * kTreeBlock * stride, stride, block_length(b),
                       std::min(kReduceColumns, width - c), partial + o * blocks + b, blocks);
      }
    });
  }
};

template <class T>
void reduce_typed(const ReduceArguments& a) {
  Axes kept, reduced;
  for (int i = 0; i < a.x.rank; ++i) (a.axes >> i & 1 ? reduced : kept).append(a.x.shape[i], a.x.strides[i]);
  const Reducer<T> reducer{kernels().reduce.block<T>(a.reduction), a.x.as<const T>(), kept, reduced};
  const std::int64_t outputs = reducer.outputs, blocks = reducer.blocks;
  if (outputs == 0) return;
  const Scratch<double> partial(outputs * blocks);
  if (blocks > 0) reducer.has_columns() ? reducer.columns(partial.get()) : reducer.rows(partial.get());
  const double divisor = a.mean ? static_cast<double>(reducer.n) : 1.0;
  T* out = a.out.as<T>();
  with_rule(a.reduction, [&](auto rule) {
    parallel_for(outputs, grain_for(blocks), [&](auto begin, auto end) {
      for (std::int64_t o = begin; o < end; ++o) {
        double* values = partial.get() + o * blocks;
        merge_pairwise(values, blocks, [&](double p, double q) { return rule.merge(p, q); });
        out[o] = static_cast<T>((blocks ? values[0] : rule.kIdentity) / divisor);
      }
    });
  });
}

}  // namespace

void reduce(const ReduceArguments& arguments) {
  with_float_type(arguments.x.dtype, [&](auto zero) { reduce_typed<decltype(zero)>(arguments); });
}

}  // namespace thalweg::cpu
