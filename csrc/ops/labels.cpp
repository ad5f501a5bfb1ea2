#include "ops/labels.h"

#include <algorithm>

#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

constexpr const char* kPick = "pick";

template <class F>
decltype(auto) with_label_type(DType dtype, F&& f) {
  return dtype == DType::i32 ? f(std::int32_t{}) : f(std::int64_t{});
}

struct LabelsLaunch {
  static constexpr const char* kName = "check_labels";
  std::string op;
  View target;
  std::int64_t classes;

  double flops() const { return 0; }
  double bytes() const { return target.bytes(); }
  void run() const {
    with_label_type(target.dtype, [&]<class Label>(Label) {
      for (std::int64_t i = 0; i < target.shape[0]; ++i) {
        const std::int64_t label = target.as<const Label>()[i * target.strides[0]];
        if (label < 0 || label >= classes)
          fail<ValueError>(op, ": target must lie in [0, ", classes, "), got ", label, " at position ", i);
      }
    });
  }
  void visit(Fields& f) const { f.read(target); }
};

struct ProbabilitiesLaunch {
  static constexpr const char* kName = "check_probabilities";
  std::string op;
  View target;  // contiguous

  double flops() const { return 0; }
  double bytes() const { return target.bytes(); }
  void run() const {
    with_float_type(target.dtype, [&]<class T>(T) {
      const T* values = target.as<const T>();
      if (!std::all_of(values, values + target.elements(), [](T p) { return p >= 0 && p <= 1; }))
        fail<ValueError>(op, ": target must lie in [0, 1]");
    });
  }
  void visit(Fields& f) const { f.read(target); }
};

struct PickLaunch {
  static constexpr const char* kName = kPick;
  View x, target, y;

  double flops() const { return 0; }
  double bytes() const { return 2 * y.bytes() + target.bytes(); }
  void run() const {
    with_float_type(y.dtype, [&]<class T>(T) {
      with_label_type(target.dtype, [&]<class Label>(Label) {
        for (std::int64_t i = 0; i < y.shape[0]; ++i) {
          const std::int64_t label = target.as<const Label>()[i * target.strides[0]];
          y.as<T>()[i] = x.as<const T>()[i * x.strides[0] + label * x.strides[1]];
        }
      });
    });
  }
  void visit(Fields& f) const {
    f.read(x);
    f.read(target);
    f.write(y);
  }
};

struct UnpickLaunch {
  static constexpr const char* kName = "unpick";
  View dy, target, dx;

  double flops() const { return 0; }
  double bytes() const { return dy.bytes() + target.bytes() + dx.bytes(); }
  void run() const {
    with_float_type(dx.dtype, [&]<class T>(T) {
      with_label_type(target.dtype, [&]<class Label>(Label) {
        std::fill_n(dx.as<T>(), dx.elements(), T(0));
        for (std::int64_t i = 0; i < dx.shape[0]; ++i) {
          const std::int64_t label = target.as<const Label>()[i * target.strides[0]];
          dx.as<T>()[i * dx.shape[1] + label] = dy.as<const T>()[i * dy.strides[0]];
        }
      });
    });
  }
  void visit(Fields& f) const {
    f.read(dy);
    f.read(target);
    f.write(dx);
  }
};

void check_target(const char* op, const View& target, const View& rows) {
  refuse_cuda(op, rows);
  check_float(op, "x", rows);
  if (target.dtype != DType::i32 && target.dtype != DType::i64)
    fail<TypeError>(op, ": target must be int32 or int64 class indices, got ", target.dtype);
  check_same_device(op, "target", target, "x", rows);
  check_length(op, "target", target, rows.shape[0]);
}

}  // namespace

void check_labels(const std::string& op, const View& target, std::int64_t classes) {
  refuse_cuda(op.c_str(), target);
  check_rank(op.c_str(), "target", target, 1);
  if (target.dtype != DType::i32 && target.dtype != DType::i64)
    fail<TypeError>(op, ": target must be int32 or int64 class indices, got ", target.dtype);
  launch(LabelsLaunch{op, target, classes});
}

void check_probabilities(const std::string& op, const View& target) {
  refuse_cuda(op.c_str(), target);
  check_float(op.c_str(), "target", target);
  check_contiguous(op.c_str(), "target", target);
  launch(ProbabilitiesLaunch{op, target});
}

void pick(const View& x, const View& target, const View& y) {
  check_rank(kPick, "x", x, 2);
  check_target(kPick, target, x);
  check_labels(kPick, target, x.shape[1]);
  launch(PickLaunch{x, target, y});
}

void unpick(const View& dy, const View& target, const View& dx) {
  check_rank("unpick", "dy", dy, 1);
  check_target("unpick", target, dy);
  check_labels("unpick", target, dx.shape[1]);
  launch(UnpickLaunch{dy, target, dx});
}

}  // namespace thalweg::ops
