#include <string>

#include "bindings/register.h"
#include "ops/softmax.h"

namespace thalweg::bindings {
namespace {

using ops::SoftmaxForm;

void define_softmax(py::module_& m, const char* op, SoftmaxForm form) {
  m.def(
      op,
      [=](py::handle object, std::int64_t axis) {
        const Array x = input(object, {op, "x"});
        check_float(op, "x", x.view);
        const int i = normalize_axis(axis, x.view.rank, {op, "axis"});
        const Array y = empty_like(x.view);
        without_gil([&] { ops::softmax(op, form, x.view, y.view, i); });
        return y.owner;
      },
      py::arg("x"), py::arg("axis") = -1);
}

void define_softmax_backward(py::module_& m, const char* op, SoftmaxForm form) {
  m.def(
      op,
      [=](py::handle gradient, py::handle forward, std::int64_t axis) {
        const Array dy = input(gradient, {op, "dy"}), y = input(forward, {op, "y"});
        check_float(op, "y", y.view);
        const int i = normalize_axis(axis, y.view.rank, {op, "axis"});
        const Array dx = empty_like(y.view);
        without_gil([&] { ops::softmax_backward(op, form, dy.view, y.view, dx.view, i); });
        return dx.owner;
      },
      py::arg("dy"), py::arg("y"), py::arg("axis") = -1);
}

py::tuple softmax_cross_entropy(py::handle logits_object, py::handle target_object, double label_smoothing,
                                const std::string& reduction) {
  constexpr const char* op = "softmax_cross_entropy";
  const Array logits = input(logits_object, {op, "logits"}), target = input(target_object, {op, "target"});
  const ops::CrossEntropyOptions options{label_smoothing, ops::parse_loss_reduction(op, reduction)};
  check_float(op, "logits", logits.view);
  check_rank(op, "logits", logits.view, 2);
  const bool per_row = options.reduction == ops::LossReduction::none;
  const Array loss = empty(logits.view.device, logits.view.dtype, logits.view.shape, per_row ? 1 : 0);
  const Array dlogits = empty_like(logits.view);
  without_gil(
      [&] { ops::softmax_cross_entropy(logits.view, target.view, options, loss.view, dlogits.view); });
  return py::make_tuple(loss.owner, dlogits.owner);
}

}  // namespace

void register_softmax(py::module_& m) {
  define_softmax(m, "softmax", SoftmaxForm::plain);
  define_softmax(m, "log_softmax", SoftmaxForm::logarithm);
  define_softmax_backward(m, "softmax_backward", SoftmaxForm::plain);
  define_softmax_backward(m, "log_softmax_backward", SoftmaxForm::logarithm);
  m.def("softmax_cross_entropy", &softmax_cross_entropy, py::arg("logits"), py::arg("target"), py::kw_only(),
        py::arg("label_smoothing") = 0.0, py::arg("reduction") = "mean");
}

}  // namespace thalweg::bindings
