#include "ops/matmul.h"

#include <algorithm>
#include <atomic>
#include <optional>

#include "base/error.h"
#include "cpu/gemm_path.h"
#include "cpu/isa.h"
#include "ops/product_checks.h"
#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

constexpr const char* kOp = "matmul";

std::atomic<Precision> default_precision{Precision::highest};

struct MatmulLaunch {
  static constexpr const char* kName = "matmul";
  GemmProblem problem;
  Precision precision;
  View a, b, out;
  std::optional<View> bias;

  double elements(double rows, double columns) const {
    return static_cast<double>(problem.batches()) * rows * columns;
  }
  double flops() const {
    return 2.0 * elements(static_cast<double>(problem.m), static_cast<double>(problem.n)) *
           static_cast<double>(problem.k);
  }
  double bytes() const {
    const auto m = static_cast<double>(problem.m), n = static_cast<double>(problem.n),
               k = static_cast<double>(problem.k);
    return static_cast<double>(size_of(problem.dtype)) * (elements(m, k) + elements(k, n)) +
           static_cast<double>(size_of(out.dtype)) * elements(m, n) * (problem.accumulate ? 2 : 1);
  }
  void run() const {
    if (const cuda::Table* table = table_for(out.device))
      return table->gemm(problem, scheme_for(precision), current_stream());
    gemm(problem, precision);
  }
  void follow() {
    problem.a.data = a.data, problem.b.data = b.data, problem.c.data = out.data;
    if (bias) problem.bias = bias->data;
  }
  void visit(Fields& f) const {
    f.read(a);
    f.read(b);
    f.read(bias);
    if (problem.accumulate) f.read(out);
    f.write(out);
    f.number("accumulate", problem.accumulate);
    f.number("activation", static_cast<double>(problem.activation));
    f.number("precision", static_cast<double>(precision));
  }
};

void check_operands(const View& a, const View& b) {
  check_factor_dtype(kOp, "a", a);
  check_factor_dtype(kOp, "b", b);
  check_same_dtype(kOp, "b", b, "a", a);
  for (const auto& [view, name] : {std::pair{&a, "a"}, std::pair{&b, "b"}})
    if (view->rank == 0)
      fail<ValueError>(kOp, ": ", name, " must have at least one dimension, got a scalar; use mul");
}

int batch_rank(const View& v) { return std::max(0, v.rank - 2); }

// Extent of batch dimension i of `rank` in v, counted from the left after broadcasting.
std::int64_t batch_extent(const View& v, int i, int rank) {
  const int at = i - (rank - batch_rank(v));
  return at < 0 ? 1 : v.shape[at];
}

std::int64_t batch_stride(const View& v, int i, int rank) {
  const int at = i - (rank - batch_rank(v));
  return at < 0 || v.shape[at] == 1 ? 0 : v.strides[at];
}

// 1-D operands are a row on the left and a column on the right, as in NumPy.
GemmProblem make_problem(const View& a, const View& b) {
  GemmProblem p;
  p.dtype = a.dtype;
  p.m = a.rank == 1 ? 1 : a.shape[a.rank - 2];
  p.k = a.shape[a.rank - 1];
  p.n = b.rank == 1 ? 1 : b.shape[b.rank - 1];
  const std::int64_t inner = b.rank == 1 ? b.shape[0] : b.shape[b.rank - 2];
  if (p.k != inner) fail<ValueError>(kOp, ": inner dimensions differ, a is ", Shape{a}, ", b is ", Shape{b});
  p.a = {a.data, a.rank == 1 ? 0 : a.strides[a.rank - 2], a.strides[a.rank - 1], {}};
  p.b = {b.data,
         b.rank == 1 ? b.strides[0] : b.strides[b.rank - 2],
         b.rank == 1 ? 0 : b.strides[b.rank - 1],
         {}};
  p.batch_rank = std::max(batch_rank(a), batch_rank(b));
  for (int i = 0; i < p.batch_rank; ++i) {
    const std::int64_t x = batch_extent(a, i, p.batch_rank), y = batch_extent(b, i, p.batch_rank);
    if (x != y && x != 1 && y != 1)
      fail<ValueError>(kOp, ": batch dimensions do not broadcast, a is ", Shape{a}, ", b is ", Shape{b});
    p.batch[i] = x == 1 ? y : x;
    p.a.batch[i] = batch_stride(a, i, p.batch_rank);
    p.b.batch[i] = batch_stride(b, i, p.batch_rank);
  }
  return p;
}

MatmulShape result_shape(const GemmProblem& p, const View& a, const View& b) {
  MatmulShape shape;
  for (int i = 0; i < p.batch_rank; ++i) shape.extents[shape.rank++] = p.batch[i];
  if (a.rank > 1) shape.extents[shape.rank++] = p.m;
  if (b.rank > 1) shape.extents[shape.rank++] = p.n;
  return shape;
}

void check_disjoint(const View& out, const char* name, const View& v) {
  if (overlaps(out, v))
    fail<ValueError>(kOp, ": out shares memory with ", name,
                     ", which is read while out is written; "
                     "pass another array, or none");
}

// As a, or the float32 in which bfloat16 is summed.
void check_result_dtype(const char* name, const View& v, const View& a) {
  if (a.dtype == DType::bf16 && v.dtype == DType::f32) return check_same_device(kOp, name, v, "a", a);
  check_same_dtype(kOp, name, v, "a", a);
}

void check_out(const View& out, const MatmulShape& shape, const View& a, const View& b) {
  check_output(kOp, "out", out);
  check_result_dtype("out", out, a);
  View expected;
  expected.rank = shape.rank;
  std::copy_n(shape.extents, shape.rank, expected.shape);
  if (!same_shape(out, expected))
    fail<ValueError>(kOp, ": out has shape ", Shape{out}, ", expected ", Shape{expected});
  check_disjoint(out, "a", a);
  check_disjoint(out, "b", b);
}

void set_out(GemmProblem& p, const View& a, const View& b, const View& out) {
  int axis = out.rank;
  p.c.data = out.data;
  p.c_dtype = out.dtype;
  // An absent dimension has extent 1: a stride of 1 lets the kernels take it for contiguous.
  p.c.col = b.rank > 1 ? out.strides[--axis] : 1;
  if (p.n == 1) p.c.col = 1;
  p.c.row = a.rank > 1 ? out.strides[--axis] : 1;
  for (int i = 0; i < p.batch_rank; ++i) p.c.batch[i] = out.strides[i];
}

void set_bias(GemmProblem& p, const View& a, const View& b, const View& out, const View& bias) {
  check_result_dtype("bias", bias, a);
  if (b.rank == 1)
    fail<ValueError>(kOp, ": bias is added to columns, but b is ", Shape{b}, " and has none; add it after");
  check_length(kOp, "bias", bias, p.n);
  check_disjoint(out, "bias", bias);
  p.bias = bias.data;
  p.bias_dtype = bias.dtype;
  p.bias_stride = bias.shape[0] == 1 ? 1 : bias.strides[0];
}

}  // namespace

cuda::GemmScheme scheme_for(Precision precision) {
  switch (precision) {
    case Precision::medium:
      return cuda::GemmScheme::bf16;
    case Precision::high:
      return cuda::GemmScheme::tf32x3;
    default:
      return cuda::GemmScheme::fma;
  }
}

MatmulShape matmul_shape(const View& a, const View& b) {
  check_operands(a, b);
  return result_shape(make_problem(a, b), a, b);
}

void matmul(const View& a, const View& b, const View& out, const MatmulOptions& options) {
  check_operands(a, b);
  MatmulLaunch record{make_problem(a, b),
                      options.precision,
                      a,
                      b,
                      out,
                      options.bias ? std::optional(*options.bias) : std::nullopt};
  check_out(out, result_shape(record.problem, a, b), a, b);
  set_out(record.problem, a, b, out);
  record.problem.accumulate = options.accumulate;
  record.problem.activation = options.activation;
  if (options.bias) set_bias(record.problem, a, b, out, *options.bias);
  launch(record);
}

Precision parse_precision(const char* op, std::string_view name) {
  for (int i = 0; i < 4; ++i)
    if (name == kPrecisions[i]) return static_cast<Precision>(i);
  fail<ValueError>(op, ": precision must be 'strict', 'highest', 'high' or 'medium', got '", name, "'");
}

const char* name_of(Precision precision) { return kPrecisions[static_cast<int>(precision)]; }

Precision matmul_precision() { return default_precision.load(std::memory_order_relaxed); }

void set_matmul_precision(Precision precision) {
  default_precision.store(precision, std::memory_order_relaxed);
}

MatmulPath matmul_path(std::int64_t m, std::int64_t k, std::int64_t n, DType dtype, Precision precision) {
  if (m < 0 || k < 0 || n < 0)
    fail<ValueError>("matmul_path: m, k and n must not be negative, got ", m, ", ", k, " and ", n);
  GemmProblem problem;
  problem.dtype = dtype;
  problem.m = m, problem.k = k, problem.n = n;
  const GemmPath path = gemm_path(problem, precision);
  std::string name = path.name;
  if (path.products > 0) name += std::string(" on ") + kernels().bf16.name;
  return {name, path.reason};
}

}  // namespace thalweg::ops
