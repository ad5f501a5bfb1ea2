// Batched matrix products C = activation(C? + A B + bias), any strides: A (M, K), B (K, N), C (M, N).
#include "cuda/product.cuh"

namespace thalweg::cuda {
namespace {

template <class T>
auto make_product(const GemmProblem& g) {
  Product<T, Strided<T>, Strided<T>> p{};
  p.m = g.m, p.n = g.n;
  p.blocks = EqualBlocks::of<T>(g.k);
  for (int i = 0; i < g.batch_rank; ++i)
    p.batch.append(g.batch[i], {g.a.batch[i], g.b.batch[i], g.c.batch[i], 0});
  p.a = {static_cast<const T*>(g.a.data), g.a.row, g.a.col};
  p.b = {static_cast<const T*>(g.b.data), g.b.col, g.b.row};
  p.c = static_cast<T*>(g.c.data), p.c_row = {g.c.row}, p.c_col = g.c.col;
  p.bias = static_cast<const T*>(g.bias), p.bias_stride = g.bias_stride;
  p.activation = g.activation;
  p.accumulate = g.accumulate;
  return p;
}

}  // namespace

void gemm(const GemmProblem& problem, GemmScheme scheme, Stream stream) {
  if (problem.m == 0 || problem.n == 0 || problem.batches() == 0) return;
  if (problem.dtype == DType::f64) return launch_fma(make_product<double>(problem), stream);
  launch_scheme(make_product<float>(problem), scheme, stream);
}

}  // namespace thalweg::cuda
