#include "bindings/register.h"
#include "ops/reduce.h"

namespace thalweg::bindings {
namespace {

py::object reduce(const char* op, Reduction reduction, bool mean, py::handle object, py::handle axis,
                  bool keepdims) {
  const Array x = input(object, {op, "x"});
  check_float(op, "x", x.view);
  unsigned axes = 0;
  for (const int i : normalize_axes(axis, x.view.rank, {op, "axis"})) axes |= 1U << i;
  std::int64_t shape[kMaxRank];
  int rank = 0;
  for (int i = 0; i < x.view.rank; ++i) {
    const bool reduced = axes >> i & 1;
    if (!reduced || keepdims) shape[rank++] = reduced ? 1 : x.view.shape[i];
  }
  const Array out = empty(x.view.device, x.view.dtype, shape, rank);
  without_gil([&] { ops::reduce(op, reduction, mean, x.view, axes, out.view); });
  return out.owner;
}

void define(py::module_& m, const char* op, Reduction reduction, bool mean = false) {
  m.def(
      op,
      [=](py::handle x, py::handle axis, bool keepdims) {
        return reduce(op, reduction, mean, x, axis, keepdims);
      },
      py::arg("x"), py::arg("axis") = py::none(), py::kw_only(), py::arg("keepdims") = false);
}

}  // namespace

void register_reduce(py::module_& m) {
  define(m, "sum", Reduction::sum);
  define(m, "mean", Reduction::sum, true);
  define(m, "max", Reduction::max);
  define(m, "min", Reduction::min);
  define(m, "sum_squares", Reduction::sum_squares);
}

}  // namespace thalweg::bindings
