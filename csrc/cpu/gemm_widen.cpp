#include "cpu/gemm_widen.h"

#include <memory>

#include "base/half.h"
#include "cpu/widen.h"

namespace thalweg {
namespace {

// A broadcast axis is kept once.
WideLayout layout_of(const GemmProblem& p, const GemmProblem::Operand& operand, std::int64_t rows,
                     std::int64_t columns) {
  WideLayout layout;
  for (int i = 0; i < p.batch_rank; ++i) layout.add(operand.batch[i] == 0 ? 1 : p.batch[i], operand.batch[i]);
  layout.add(rows, operand.row);
  layout.add(columns, operand.col);
  return layout;
}

// The contiguous copy in place of the operand.
GemmProblem::Operand contiguous(const GemmProblem& p, const WideLayout& layout, float* data) {
  GemmProblem::Operand copy;
  copy.data = data;
  copy.col = 1;
  copy.row = layout.extent[layout.rank - 1];
  std::int64_t stride = copy.row * layout.extent[layout.rank - 2];
  for (int i = p.batch_rank - 1; i >= 0; --i) {
    copy.batch[i] = layout.extent[i] == 1 ? 0 : stride;
    stride *= layout.extent[i];
  }
  return copy;
}

}  // namespace

void gemm_widened(const GemmProblem& problem) {
  GemmProblem p = problem;
  const WideLayout a = layout_of(p, p.a, p.m, p.k), b = layout_of(p, p.b, p.k, p.n),
                   c = layout_of(p, p.c, p.m, p.n);
  const bool narrow_c = p.c_dtype == DType::bf16, widen_bias = p.bias && p.bias_dtype == DType::bf16;
  const std::int64_t c_elements = narrow_c ? c.elements() : 0, bias_elements = widen_bias ? p.n : 0;
  const auto memory = std::make_unique_for_overwrite<float[]>(
      static_cast<std::size_t>(a.elements() + b.elements() + c_elements + bias_elements));
  float* const copy_a = memory.get();
  float* const copy_b = copy_a + a.elements();
  float* const copy_c = copy_b + b.elements();
  float* const bias = copy_c + c_elements;
  widen(a, p.a.data, copy_a);
  widen(b, p.b.data, copy_b);
  p.dtype = DType::f32;
  p.a = contiguous(p, a, copy_a);
  p.b = contiguous(p, b, copy_b);
  if (narrow_c) {
    p.c = contiguous(p, c, copy_c);
    if (p.accumulate) widen(c, problem.c.data, copy_c);
  }
  if (widen_bias) {
    const auto* x = static_cast<const std::uint16_t*>(p.bias);
    for (std::int64_t j = 0; j < p.n; ++j) bias[j] = Bfloat16::widen(x[j * p.bias_stride]);
    p.bias = bias;
    p.bias_stride = 1;
  }
  gemm(p);
  if (narrow_c) narrow(c, copy_c, problem.c.data);
}

}  // namespace thalweg
