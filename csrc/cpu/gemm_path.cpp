#include "cpu/gemm_path.h"

#include <algorithm>

#include "cpu/gemm_split.h"
#include "cpu/gemm_widen.h"
#include "cpu/isa.h"

namespace thalweg {
namespace {

constexpr std::int64_t kFewLines = 4;         // fewer rows or columns are read, not multiplied
constexpr std::int64_t kSixDepth = 32;        // from here the bound of six products is the smaller one
constexpr double kSmallest = 32.0 * 32 * 32;  // M N K; below, packing takes longer than the products

GemmPath multiply_adds(const GemmProblem& p, const char* reason) {
  return {0, p.dtype == DType::bf16 ? "multiply-adds of widened operands" : "multiply-adds", reason};
}

GemmPath products(int count) {
  static constexpr const char* kNames[] = {"", "one bfloat16 product", "", "three bfloat16 products", "",
                                           "", "six bfloat16 products"};
  static constexpr const char* kReasons[] = {"",
                                             "the fastest path for bfloat16",
                                             "",
                                             "error at most 3.1e-5 |A||B|",
                                             "",
                                             "",
                                             "their bound is below that of multiply-adds for this K"};
  return {count, kNames[count], kReasons[count]};
}

}  // namespace

GemmPath gemm_path(const GemmProblem& p, Precision precision) {
  const Bf16Kernels& kernels = thalweg::kernels().bf16;
  const double size = static_cast<double>(p.m) * static_cast<double>(p.n) * static_cast<double>(p.k);
  if (p.dtype == DType::f64) return multiply_adds(p, "float64 has one path; precision does not apply");
  if (precision == Precision::strict) return multiply_adds(p, "precision 'strict' allows nothing else");
  if (!kernels.name) return multiply_adds(p, "this instruction set multiplies no bfloat16");
  if (std::min(p.m, p.n) < kFewLines)
    return multiply_adds(p, "fewer than 4 rows or columns: reading the operands takes the time");
  if (size < kSmallest) return multiply_adds(p, "small: packing would take longer than the product");
  if (p.dtype == DType::bf16 || precision == Precision::medium) return products(1);
  if (!kernels.split) return multiply_adds(p, "three products take longer than multiply-adds without AMX");
  if (precision == Precision::high) return products(3);
  if (p.k < kSixDepth) return multiply_adds(p, "K is too small for the bound of six products");
  return products(6);
}

void gemm(const GemmProblem& problem, Precision precision) {
  const GemmPath path = gemm_path(problem, precision);
  if (problem.m == 0 || problem.n == 0 || problem.batches() == 0) return;
  if (path.products > 0)
    gemm_split(problem, kernels().bf16, path.products, precision != Precision::medium);
  else if (problem.dtype == DType::bf16)
    gemm_widened(problem);
  else
    gemm(problem);
}

}  // namespace thalweg
