#include "ops/dropout.h"

#include <optional>

#include "ops/counter.h"
#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

constexpr std::int64_t kWords = std::int64_t{1} << 32;

void check_offset(const View& x, std::int64_t offset) {
  if (x.shape[0] > kWords - offset)
    fail<ValueError>("dropout: sample_offset + samples must be at most 2^32, got ", offset, " + ",
                     x.shape[0]);
}

struct DropoutLaunch {
  static constexpr const char* kName = "dropout";
  View x, y;
  DropoutOptions options;
  std::optional<View> source;  // seed, step and sample_offset where they come from memory

  double flops() const { return static_cast<double>(y.elements()); }
  double bytes() const { return x.bytes() + y.bytes(); }
  void run() const {
    on_device(y.device, cpu::dropout, &cuda::Table::dropout, x, y, source ? from_memory() : options);
  }
  DropoutOptions from_memory() const {
    const auto* words = source->as<const std::int64_t>();
    if (words[1] < 0 || words[1] >= kWords || words[2] < 0)
      fail<ValueError>("dropout: step and sample_offset must be between 0 and 4294967295, got ", words[1],
                       " and ", words[2]);
    check_offset(x, words[2]);
    return {options.p, static_cast<std::uint64_t>(words[0]), static_cast<std::uint32_t>(words[1]),
            options.module, static_cast<std::uint32_t>(words[2])};
  }
  void visit(Fields& f) const {
    f.read(x);
    f.read(source);
    f.write(y);
    f.number("p", options.p);
    f.number("module", options.module);
    if (source) return;
    f.number("seed", static_cast<double>(options.seed >> 32));
    f.number("seed", static_cast<double>(options.seed & 0xffffffffu));
    f.number("step", options.step);
    f.number("sample_offset", options.sample_offset);
  }
};

}  // namespace

void dropout(const View& x, const DropoutOptions& options, const std::optional<View>& source, const View& y) {
  check_float("dropout", "x", x);
  if (x.rank == 0) fail<ValueError>("dropout: x must have at least 1 dimension, axis 0 counts samples");
  if (!(options.p >= 0 && options.p < 1)) fail<ValueError>("dropout: p must be in [0, 1), got ", options.p);
  check_offset(x, options.sample_offset);
  if (source) check_counter("dropout", "source", *source, 3);
  if (x.shape[0] > 0 && x.elements() / x.shape[0] > 4 * kWords)
    fail<ValueError>("dropout: a sample may have at most 2^34 elements, x has shape ", Shape{x});
  launch(DropoutLaunch{x, y, options, source});
}

}  // namespace thalweg::ops
