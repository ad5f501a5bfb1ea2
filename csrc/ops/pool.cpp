#include "ops/pool.h"

#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

using cpu::PoolAxis;
using cpu::PoolGeometry;

constexpr std::int64_t kLargest = std::int64_t{1} << 31;  // of windows and axes: their products fit

PoolAxis axis_of(const char* op, const char* name, std::int64_t in, const PoolOptions& o, int i) {
  const std::int64_t kernel = o.kernel[i], stride = o.stride[i], padding = o.padding[i],
                     dilation = o.dilation[i];
  for (const auto& [option, value] :
       {std::pair{"kernel", kernel}, {"stride", stride}, {"dilation", dilation}})
    if (value < 1 || value >= kLargest)
      fail<ValueError>(op, ": ", option, " must be between 1 and 2^31 - 1, got ", value);
  const std::int64_t window = (kernel - 1) * dilation + 1;
  if (padding < 0 || padding > window / 2)
    fail<ValueError>(op, ": padding must be between 0 and half the window (", window / 2, " of ", window,
                     "), got ", padding);
  if (in + 2 * padding < window)
    fail<ValueError>(op, ": the window's ", name, " is ", window, ", but x with its padding has ",
                     in + 2 * padding);
  const std::int64_t room = in + 2 * padding - window;
  std::int64_t out = (o.ceil_mode ? room + stride - 1 : room) / stride + 1;
  if (o.ceil_mode && (out - 1) * stride >= in + padding) --out;  // a window begins in x or before it
  const PoolAxis axis{in, out, kernel, stride, padding, dilation};
  for (std::int64_t w = 0; w < out; ++w)
    if (axis.first(w) >= axis.last(w))
      fail<ValueError>(op, ": window ", w, " along the ", name,
                       " sees padding alone; use less padding or dilation");
  return axis;
}

struct PoolLaunch {
  PoolGeometry g;

  double taps(const View& windows) const { return static_cast<double>(windows.elements() * g.taps()); }
  void numbers(Fields& f) const {
    for (const PoolAxis* a : {&g.h, &g.w})
      for (const std::int64_t n : {a->kernel, a->stride, a->padding, a->dilation})
        f.number("window", static_cast<double>(n));
    f.number("count_include_pad", g.count_padding);
  }
};

struct MaxPoolLaunch : PoolLaunch {
  static constexpr const char* kName = "max_pool2d";
  View x, y, index;
  bool relu;

  double flops() const { return taps(y); }
  double bytes() const { return x.bytes() + y.bytes() + index.bytes(); }
  void run() const {
    if (y.elements() > 0) on_device(y.device, cpu::max_pool, &cuda::Table::max_pool, g, x, relu, y, index);
  }
  void visit(Fields& f) const {
    f.read(x);
    f.write(y);
    f.write(index);
    f.number("activation", relu);
    numbers(f);
  }
};

struct MaxPoolBackwardLaunch : PoolLaunch {
  static constexpr const char* kName = "max_pool2d_backward";
  View dy, index, dx;

  double flops() const { return taps(dy); }
  double bytes() const { return dy.bytes() + index.bytes() + dx.bytes(); }
  void run() const {
    if (dx.elements() > 0)
      on_device(dx.device, cpu::max_pool_backward, &cuda::Table::max_pool_backward, g, dy, index, dx);
  }
  void visit(Fields& f) const {
    f.read(dy);
    f.read(index);
    f.write(dx);
    numbers(f);
  }
};

struct MaxPoolPickLaunch : PoolLaunch {
  static constexpr const char* kName = "max_pool2d_pick";
  View x, index, y;

  double flops() const { return taps(y); }
  double bytes() const { return 2 * y.bytes() + index.bytes(); }
  void run() const {
    if (y.elements() > 0)
      on_device(y.device, cpu::max_pool_pick, &cuda::Table::max_pool_pick, g, x, index, y);
  }
  void visit(Fields& f) const {
    f.read(x);
    f.read(index);
    f.write(y);
    numbers(f);
  }
};

struct AvgPoolLaunch : PoolLaunch {
  static constexpr const char* kName = "avg_pool2d";
  View x, y;

  double flops() const { return taps(y); }
  double bytes() const { return x.bytes() + y.bytes(); }
  void run() const {
    if (y.elements() > 0) on_device(y.device, cpu::avg_pool, &cuda::Table::avg_pool, g, x, y);
  }
  void visit(Fields& f) const {
    f.read(x);
    f.write(y);
    numbers(f);
  }
};

struct AvgPoolBackwardLaunch : PoolLaunch {
  static constexpr const char* kName = "avg_pool2d_backward";
  View dy, dx;

  double flops() const { return taps(dy); }
  double bytes() const { return dy.bytes() + dx.bytes(); }
  void run() const {
    if (dx.elements() > 0)
      on_device(dx.device, cpu::avg_pool_backward, &cuda::Table::avg_pool_backward, g, dy, dx);
  }
  void visit(Fields& f) const {
    f.read(dy);
    f.write(dx);
    numbers(f);
  }
};

// An array that is shaped like the windows of x.
void check_windows(const char* op, const char* name, const PoolGeometry& g, const View& v, const View& x) {
  View expected = x;
  expected.shape[2] = g.h.out, expected.shape[3] = g.w.out;
  check_same_dtype(op, name, v, "x", x);
  if (!same_shape(v, expected))
    fail<ValueError>(op, ": ", name, " has shape ", Shape{v}, ", expected ", Shape{expected}, ", that of y");
}

void check_index(const char* op, const PoolGeometry& g, const View& index, const View& x,
                 bool channels_last) {
  check_same_device(op, "saved", index, "x", x);
  const bool shaped = index.rank == 4 && index.shape[0] == x.shape[0] && index.shape[1] == x.shape[1] &&
                      index.shape[2] == g.h.out && index.shape[3] == g.w.out;
  if (!shaped || index.dtype != pool_index_type(g) ||
      (index.elements() > 0 && !(channels_last ? index.strides[1] == 1 : index.contiguous())))
    fail<ValueError>(op, ": saved must be what max_pool2d returned for x");
}

}  // namespace

PoolGeometry pool_geometry(const char* op, const View& x, const PoolOptions& o) {
  check_float(op, "x", x);
  check_rank(op, "x", x, 4);
  const PoolGeometry g{axis_of(op, "height", x.shape[2], o, 0), axis_of(op, "width", x.shape[3], o, 1),
                       o.count_padding};
  if (g.h.kernel * g.w.kernel >= kLargest)
    fail<ValueError>(op, ": a window has ", g.taps(), " elements, expected fewer than 2^31");
  return g;
}

DType pool_index_type(const PoolGeometry& g) { return g.taps() < 256 ? DType::u8 : DType::i32; }

void max_pool(const PoolGeometry& g, const View& x, bool relu, const View& y, const View& index) {
  launch(MaxPoolLaunch{{g}, x, y, index, relu});
}

void max_pool_backward(const PoolGeometry& g, const View& dy, const View& index, const View& dx) {
  constexpr const char* op = "max_pool2d_backward";
  check_windows(op, "dy", g, dy, dx);
  check_index(op, g, index, dx, cpu::channels_last(dx));
  launch(MaxPoolBackwardLaunch{{g}, dy, index, dx});
}

void max_pool_pick(const PoolGeometry& g, const View& x, const View& index, const View& y) {
  check_index("max_pool2d_pick", g, index, x, cpu::channels_last(y));
  launch(MaxPoolPickLaunch{{g}, x, index, y});
}

void avg_pool(const PoolGeometry& g, const View& x, const View& y) { launch(AvgPoolLaunch{{g}, x, y}); }

void avg_pool_backward(const PoolGeometry& g, const View& dy, const View& dx) {
  check_windows("avg_pool2d_backward", "dy", g, dy, dx);
  launch(AvgPoolBackwardLaunch{{g}, dy, dx});
}

}  // namespace thalweg::ops
