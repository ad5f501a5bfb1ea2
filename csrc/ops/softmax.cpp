#include "ops/softmax.h"

#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

constexpr double kExpFlops = 15;  // additions and multiplications of one exponential

struct SoftmaxLaunch {
  const char* op;
  SoftmaxForm form;
  View x, y;
  int axis;

  const char* name() const { return op; }

  double flops() const { return (kExpFlops + 4) * static_cast<double>(x.elements()); }
  double bytes() const { return x.bytes() + y.bytes(); }
  void run() const { on_device(y.device, cpu::softmax, &cuda::Table::softmax, form, x, y, axis); }
  void visit(Fields& f) const {
    f.read(x);
    f.write(y);
    f.number("axis", axis);
  }
};

struct SoftmaxBackwardLaunch {
  const char* op;
  SoftmaxForm form;
  View dy, y, dx;
  int axis;

  const char* name() const { return op; }

  double flops() const {
    return (form == SoftmaxForm::plain ? 4 : kExpFlops + 3) * static_cast<double>(dx.elements());
  }
  double bytes() const { return dy.bytes() + y.bytes() + dx.bytes(); }
  void run() const {
    on_device(dx.device, cpu::softmax_backward, &cuda::Table::softmax_backward, form, dy, y, dx, axis);
  }
  void visit(Fields& f) const {
    f.read(dy);
    f.read(y);
    f.write(dx);
    f.number("axis", axis);
  }
};

void check_labels(const View& target, std::int64_t classes);

struct CrossEntropyLaunch {
  static constexpr const char* kName = "softmax_cross_entropy";
  View logits, target;
  CrossEntropyOptions options;
  View loss, dlogits;

  double flops() const { return (kExpFlops + 5) * static_cast<double>(logits.elements()); }
  double bytes() const { return logits.bytes() + target.bytes() + loss.bytes() + dlogits.bytes(); }
  // The labels are looked at in every run: they are data, and out of range they would be addresses.
  void run() const {
    check_labels(target, logits.shape[1]);
    on_device(dlogits.device, cpu::softmax_cross_entropy, &cuda::Table::softmax_cross_entropy, logits, target,
              options.label_smoothing, options.reduction, loss, dlogits);
  }
  void visit(Fields& f) const {
    f.read(logits);
    f.read(target);
    f.write(loss);
    f.write(dlogits);
    f.number("label_smoothing", options.label_smoothing);
    f.number("reduction", static_cast<double>(options.reduction));
  }
};

[[noreturn]] void refuse_label(std::int64_t row, std::int64_t label, std::int64_t classes) {
  fail<ValueError>("softmax_cross_entropy: target[", row, "] is ", label, ", expected a class in [0, ",
                   classes, ")");
}

template <class Label>
void check_labels(const View& target, std::int64_t classes) {
  for (std::int64_t row = 0; row < target.shape[0]; ++row) {
    const std::int64_t label = target.as<const Label>()[row * target.strides[0]];
    if (label < 0 || label >= classes) refuse_label(row, label, classes);
  }
}

void check_labels(const View& target, std::int64_t classes) {
  if (const cuda::Table* table = table_for(target.device)) {
    const auto bad = table->first_bad_label(target, classes, current_stream());
    if (bad) refuse_label(bad->row, bad->label, classes);
  } else if (target.dtype == DType::i32) {
    check_labels<std::int32_t>(target, classes);
  } else {
    check_labels<std::int64_t>(target, classes);
  }
}

void check_cross_entropy(const View& logits, const View& target, const CrossEntropyOptions& options) {
  constexpr const char* op = "softmax_cross_entropy";
  check_float(op, "logits", logits);
  check_rank(op, "logits", logits, 2);
  if (target.dtype != DType::i32 && target.dtype != DType::i64)
    fail<TypeError>(op, ": target must be int32 or int64 class indices, got ", target.dtype);
  check_length(op, "target", target, logits.shape[0]);
  if (!(options.label_smoothing >= 0 && options.label_smoothing < 1))
    fail<ValueError>(op, ": label_smoothing must be in [0, 1), got ", options.label_smoothing);
  check_same_device(op, "target", target, "logits", logits);
}

}  // namespace

LossReduction parse_loss_reduction(const char* op, std::string_view name) {
  if (name == "mean") return LossReduction::mean;
  if (name == "sum") return LossReduction::sum;
  if (name == "none") return LossReduction::none;
  fail<ValueError>(op, ": reduction must be 'mean', 'sum' or 'none', got '", name, "'");
}

void softmax(const char* op, SoftmaxForm form, const View& x, const View& y, int axis) {
  check_float(op, "x", x);
  launch(SoftmaxLaunch{op, form, x, y, axis});
}

void softmax_backward(const char* op, SoftmaxForm form, const View& dy, const View& y, const View& dx,
                      int axis) {
  check_float(op, "y", y);
  check_same_dtype(op, "dy", dy, "y", y);
  check_same_shape(op, "dy", dy, "y", y);
  launch(SoftmaxBackwardLaunch{op, form, dy, y, dx, axis});
}

void softmax_cross_entropy(const View& logits, const View& target, const CrossEntropyOptions& options,
                           const View& loss, const View& dlogits) {
  check_cross_entropy(logits, target, options);
  launch(CrossEntropyLaunch{logits, target, options, loss, dlogits});
}

}  // namespace thalweg::ops
