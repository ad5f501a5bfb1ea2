#include "ops/reduce.h"

#include "cpu/reduce.h"
#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

struct ReduceLaunch {
  const char* op;
  cpu::ReduceArguments arguments;

  const char* name() const { return op; }

  double flops() const { return static_cast<double>(arguments.x.elements()); }
  double bytes() const { return arguments.x.bytes() + arguments.out.bytes(); }
  void run() const { on_device(arguments.out.device, cpu::reduce, &cuda::Table::reduce, arguments); }
  void visit(Fields& f) const {
    f.read(arguments.x);
    f.write(arguments.out);
    f.number("axes", arguments.axes);
  }
};

}  // namespace

void reduce(const char* op, Reduction reduction, bool mean, const View& x, unsigned axes, const View& out) {
  check_float(op, "x", x);
  const bool needs_elements = reduction == Reduction::max || reduction == Reduction::min;
  if (needs_elements && x.elements() == 0 && out.elements() != 0)
    fail<ValueError>(op, ": x has shape ", Shape{x}, " and nothing to choose from along the reduced axes");
  launch(ReduceLaunch{op, {reduction, mean, axes, x, out}});
}

}  // namespace thalweg::ops
