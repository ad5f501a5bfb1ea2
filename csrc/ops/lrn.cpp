#include "ops/lrn.h"

#include <cmath>

#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

void numbers(Fields& f, const cpu::LrnOptions& o) {
  f.number("size", static_cast<double>(o.size));
  f.number("alpha", o.alpha);
  f.number("beta", o.beta);
  f.number("k", o.k);
}

double work(const View& x, const cpu::LrnOptions& o) {
  return static_cast<double>(x.elements()) * static_cast<double>(o.size + 6);
}

struct LrnLaunch {
  static constexpr const char* kName = "local_response_norm";
  cpu::LrnOptions o;
  View x, y;

  double flops() const { return work(x, o); }
  double bytes() const { return x.bytes() + y.bytes(); }
  void run() const {
    if (x.elements() > 0)
      on_device(y.device, cpu::local_response_norm, &cuda::Table::local_response_norm, o, x, y);
  }
  void visit(Fields& f) const {
    f.read(x);
    f.write(y);
    numbers(f, o);
  }
};

struct LrnBackwardLaunch {
  static constexpr const char* kName = "local_response_norm_backward";
  cpu::LrnOptions o;
  View dy, x, dx;

  double flops() const { return 2 * work(x, o); }
  double bytes() const { return dy.bytes() + x.bytes() + dx.bytes(); }
  void run() const {
    if (x.elements() > 0)
      on_device(dx.device, cpu::local_response_norm_backward, &cuda::Table::local_response_norm_backward, o,
                dy, x, dx);
  }
  void visit(Fields& f) const {
    f.read(dy);
    f.read(x);
    f.write(dx);
    numbers(f, o);
  }
};

}  // namespace

void check_local_response_norm(const char* op, const View& x, const cpu::LrnOptions& o) {
  check_float(op, "x", x);
  check_rank(op, "x", x, 4);
  if (o.size < 1 || o.size > (1 << 20))
    fail<ValueError>(op, ": size must be between 1 and 2^20, got ", o.size);
  for (const auto& [name, value] : {std::pair{"alpha", o.alpha}, {"beta", o.beta}, {"k", o.k}})
    if (!std::isfinite(value)) fail<ValueError>(op, ": ", name, " must be finite, got ", value);
}

void local_response_norm(const cpu::LrnOptions& o, const View& x, const View& y) {
  launch(LrnLaunch{o, x, y});
}

void local_response_norm_backward(const cpu::LrnOptions& o, const View& dy, const View& x, const View& dx) {
  constexpr const char* op = "local_response_norm_backward";
  check_same_dtype(op, "dy", dy, "x", x);
  check_same_shape(op, "dy", dy, "x", x);
  launch(LrnBackwardLaunch{o, dy, x, dx});
}

}  // namespace thalweg::ops
