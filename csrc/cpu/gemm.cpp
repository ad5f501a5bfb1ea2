// Which way a matrix product goes, by shape and strides.
#include "cpu/gemm.h"

#include <utility>

#include "cpu/gemm_blocked.h"
#include "cpu/gemm_stack.h"
#include "cpu/gemv.h"

namespace thalweg {
namespace {

constexpr std::int64_t kNarrow = 4;  // columns that are better taken as rows

// C' = B' A'. Few columns would leave most lanes of a vector idle: as rows they take a row or a strip.
bool better_transposed(const GemmProblem& p) {
  return p.m > p.n && p.n <= kNarrow && (p.a.col == 1 || p.a.row == 1) && !p.bias;
}

GemmProblem transposed(const GemmProblem& p) {
  GemmProblem row = p;
  std::swap(row.m, row.n);
  std::swap(row.a, row.b);
  for (GemmProblem::Operand* operand : {&row.a, &row.b, &row.c}) std::swap(operand->row, operand->col);
  return row;
}

}  // namespace

void gemm(const GemmProblem& problem) {
  if (problem.m == 0 || problem.n == 0 || problem.batches() == 0) return;
  with_float_type(problem.dtype, [&]<class T>(T) {
    if (multiply_vector<T>(problem)) return;
    const GemmProblem p = better_transposed(problem) ? transposed(problem) : problem;
    if (!multiply_stack<T>(p)) multiply_blocked<T>(p);
  });
}

}  // namespace thalweg
