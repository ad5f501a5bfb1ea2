#include "ops/dropout.h"

#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

struct DropoutLaunch {
  static constexpr const char* kName = "dropout";
  View x, y;
  DropoutOptions options;
  double flops() const { return static_cast<double>(y.elements()); }
  double bytes() const { return x.bytes() + y.bytes(); }
  void run() const { on_device(y.device, cpu::dropout, &cuda::Table::dropout, x, y, options); }
};

constexpr std::int64_t kWords = std::int64_t{1} << 32;

}  // namespace

void dropout(const View& x, const DropoutOptions& options, const View& y) {
  check_float("dropout", "x", x);
  if (x.rank == 0) fail<ValueError>("dropout: x must have at least 1 dimension, axis 0 counts samples");
  if (!(options.p >= 0 && options.p < 1)) fail<ValueError>("dropout: p must be in [0, 1), got ", options.p);
  if (x.shape[0] > kWords - options.sample_offset)
    fail<ValueError>("dropout: sample_offset + samples must be at most 2^32, got ", options.sample_offset,
                     " + ", x.shape[0]);
  if (x.shape[0] > 0 && x.elements() / x.shape[0] > 4 * kWords)
    fail<ValueError>("dropout: a sample may have at most 2^34 elements, x has shape ", Shape{x});
  launch(DropoutLaunch{x, y, options});
}

}  // namespace thalweg::ops
