#include "cpu/gemm_widen.h"

#include <memory>

#include "base/half.h"
#include "base/parallel.h"

namespace thalweg {
namespace {

constexpr std::int64_t kGrain = 1 << 14;  // elements

// Strides and extents of one operand's matrices: the batch, then rows and columns.
struct Layout {
  int rank = 0;
  std::int64_t extent[kMaxRank + 2] = {}, stride[kMaxRank + 2] = {};

  std::int64_t elements() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= extent[i];
    return n;
  }
  std::int64_t offset(std::int64_t index) const {
    std::int64_t at = 0;
    for (int i = rank - 1; i >= 0; --i) {
      at += index % extent[i] * stride[i];
      index /= extent[i];
    }
    return at;
  }
};

// A broadcast axis is kept once.
Layout layout_of(const GemmProblem& p, const GemmProblem::Operand& operand, std::int64_t rows,
                 std::int64_t columns) {
  Layout layout;
  for (int i = 0; i < p.batch_rank; ++i) {
    layout.extent[i] = operand.batch[i] == 0 ? 1 : p.batch[i];
    layout.stride[i] = operand.batch[i];
  }
  layout.rank = p.batch_rank + 2;
  layout.extent[layout.rank - 2] = rows, layout.stride[layout.rank - 2] = operand.row;
  layout.extent[layout.rank - 1] = columns, layout.stride[layout.rank - 1] = operand.col;
  return layout;
}

// The contiguous copy in place of the operand.
GemmProblem::Operand contiguous(const GemmProblem& p, const Layout& layout, float* data) {
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

// f(offset in the operand, stride, offset in the copy, count) for each row.
template <class F>
void for_each_row(const Layout& layout, const F& f) {
  const std::int64_t columns = layout.extent[layout.rank - 1];
  if (layout.elements() == 0) return;
  parallel_for(layout.elements() / columns, kGrain / columns + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      f(layout.offset(row * columns), layout.stride[layout.rank - 1], row * columns, columns);
  });
}

void widen(const Layout& layout, const void* data, float* copy) {
  for_each_row(layout, [&](std::int64_t from, std::int64_t stride, std::int64_t to, std::int64_t count) {
    const auto* x = static_cast<const std::uint16_t*>(data) + from;
    for (std::int64_t j = 0; j < count; ++j) copy[to + j] = Bfloat16::widen(x[j * stride]);
  });
}

void narrow(const Layout& layout, const float* copy, void* data) {
  for_each_row(layout, [&](std::int64_t to, std::int64_t stride, std::int64_t from, std::int64_t count) {
    auto* x = static_cast<std::uint16_t*>(data) + to;
    for (std::int64_t j = 0; j < count; ++j) x[j * stride] = Bfloat16::narrow(copy[from + j]);
  });
}

}  // namespace

void gemm_widened(const GemmProblem& problem) {
  GemmProblem p = problem;
  const Layout a = layout_of(p, p.a, p.m, p.k), b = layout_of(p, p.b, p.k, p.n),
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
