// Reductions over any axes, through the tree of base/tree.h: the CPU's bits.
//
// A group of kTreeLanes threads sums one tree block; a second kernel merges the blocks of an output
// where there are several.
#include "base/tree.h"
#include "cuda/families.h"
#include "cuda/launch.cuh"
#include "cuda/layout.cuh"
#include "rules/reduce.h"

namespace thalweg::cuda {
namespace {

constexpr unsigned kUnits = 16;  // tree blocks that a thread block sums
constexpr unsigned kThreads = kUnits * kTreeLanes;

struct ReduceShape {
  Layout<1> kept, reduced;
  std::int64_t n, outputs, blocks;  // elements of an output, outputs, tree blocks of an output
  bool columns;  // neighbouring threads take neighbouring outputs, not neighbouring elements of one
};

template <class Rule, class T>
__global__ void __launch_bounds__(kThreads)
    reduce_blocks(ReduceShape shape, const T* x, double* partial, T* out, double divisor) {
  THALWEG_SHARED(double, lanes, [kUnits][kTreeLanes]);
  const unsigned lane = shape.columns ? threadIdx.x / kUnits : threadIdx.x % kTreeLanes;
  const unsigned unit = shape.columns ? threadIdx.x % kUnits : threadIdx.x / kTreeLanes;
  const std::int64_t id = std::int64_t{blockIdx.x} * kUnits + unit;
  const std::int64_t output = id % shape.outputs, block = id / shape.outputs;

  double sum = Rule::kIdentity;
  if (block < shape.blocks) {
    const T* base = x + shape.kept.offsets(output).of[0];
    const std::int64_t begin = block * kTreeBlock;
    const std::int64_t end = begin + kTreeBlock < shape.n ? begin + kTreeBlock : shape.n;
    for (std::int64_t i = begin + lane; i < end; i += kTreeLanes)
      sum = Rule::merge(sum, Rule::map(static_cast<double>(base[shape.reduced.offsets(i).of[0]])));
  }
  lanes[unit][lane] = sum;
  barrier();
  if (lane != 0 || block >= shape.blocks) return;
  merge_pairwise(&lanes[unit][0], kTreeLanes, [](double a, double b) { return Rule::merge(a, b); });
  if (shape.blocks == 1)
    out[output] = static_cast<T>(lanes[unit][0] / divisor);
  else
    partial[output * shape.blocks + block] = lanes[unit][0];
}

// One thread block per output; merge_pairwise() with its inner loop spread over threads.
template <class Rule, class T>
__global__ void __launch_bounds__(kThreads)
    merge_blocks(std::int64_t blocks, double* partial, T* out, double divisor) {
  double* values = partial + std::int64_t{blockIdx.x} * blocks;
  for (std::int64_t stride = 1; stride < blocks; stride *= 2) {
    for (std::int64_t i = threadIdx.x * 2 * stride; i + stride < blocks; i += kThreads * 2 * stride)
      values[i] = Rule::merge(values[i], values[i + stride]);
    barrier();
  }
  if (threadIdx.x == 0) out[blockIdx.x] = static_cast<T>((blocks ? values[0] : Rule::kIdentity) / divisor);
}

template <class Rule, class T>
void reduce_with(const ReduceShape& shape, const View& x, const View& out, double divisor, Stream stream) {
  const Scratch partial(
      static_cast<std::size_t>(shape.blocks > 1 ? shape.outputs * shape.blocks : 0) * sizeof(double), stream);
  if (shape.blocks > 0)
    launch(reduce_blocks<Rule, T>, blocks_for(shape.outputs * shape.blocks, kUnits), kThreads, 0, stream,
           shape, x.as<const T>(), partial.as<double>(), out.as<T>(), divisor);
  if (shape.blocks != 1)
    launch(merge_blocks<Rule, T>, blocks_for(shape.outputs, 1), kThreads, 0, stream, shape.blocks,
           partial.as<double>(), out.as<T>(), divisor);
}

}  // namespace

void reduce(const cpu::ReduceArguments& a, Stream stream) {
  ReduceShape shape{};
  for (int i = 0; i < a.x.rank; ++i)
    (a.axes >> i & 1 ? shape.reduced : shape.kept).append(a.x.shape[i], {a.x.strides[i]});
  shape.n = shape.reduced.elements();
  shape.outputs = shape.kept.elements();
  shape.blocks = tree_blocks(shape.n);
  shape.columns = shape.kept.inner_stride(0) == 1 && shape.reduced.inner_stride(0) != 1;
  if (shape.outputs == 0) return;
  const double divisor = a.mean ? static_cast<double>(shape.n) : 1.0;
  with_rule(a.reduction, [&]<class Rule>(Rule) {
    with_float_type(a.x.dtype, [&]<class T>(T) { reduce_with<Rule, T>(shape, a.x, a.out, divisor, stream); });
  });
}

}  // namespace thalweg::cuda
