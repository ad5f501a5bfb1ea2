#include "ops/counter.h"

#include <algorithm>

#include "cpu/elementwise.h"
#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

struct AdvanceLaunch {
  static constexpr const char* kName = "advance";
  View counter;

  double flops() const { return 0; }
  double bytes() const { return 2 * counter.bytes(); }
  void run() const { ++*counter.as<std::int64_t>(); }
  void visit(Fields& f) const {
    f.read(counter);
    f.write(counter);
  }
};

struct SnapshotLaunch {
  static constexpr const char* kName = "snapshot";
  View counters, copy;

  double flops() const { return 0; }
  double bytes() const { return counters.bytes() + copy.bytes(); }
  void run() const {
    std::copy_n(counters.as<const std::int64_t>(), counters.elements(), copy.as<std::int64_t>());
  }
  void visit(Fields& f) const {
    f.read(counters);
    f.write(copy);
  }
};

struct FillLaunch {
  static constexpr const char* kName = "fill";
  View out;
  double value;

  double flops() const { return 0; }
  double bytes() const { return out.bytes(); }
  void run() const {
    refuse_cuda(kName, out);
    with_float_type(out.dtype,
                    [&]<class T>(T) { std::fill_n(out.as<T>(), out.elements(), static_cast<T>(value)); });
  }
  void visit(Fields& f) const {
    f.write(out);
    f.number("value", value);
  }
};

}  // namespace

void check_counter(const char* op, const char* name, const View& v, std::int64_t words) {
  if (v.dtype != DType::i64 || v.device != Device::cpu || v.elements() != words || !v.contiguous())
    fail<TypeError>(op, ": ", name, " must be ", words, " contiguous int64 in host memory, got ", v.dtype,
                    " of shape ", Shape{v});
}

void advance(const View& counter) {
  check_counter("advance", "counter", counter);
  launch(AdvanceLaunch{counter});
}

void snapshot(const View& counters, const View& copy) {
  check_counter("snapshot", "counters", counters, counters.elements());
  launch(SnapshotLaunch{counters, copy});
}

void fill(const View& out, double value) {
  check_float("fill", "out", out);
  check_contiguous("fill", "out", out);
  launch(FillLaunch{out, value});
}

}  // namespace thalweg::ops
