#include "ops/conv.h"

#include <algorithm>

#include "base/error.h"
#include "ops/product_checks.h"
#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

constexpr const char* kForward = "conv2d";
constexpr const char* kData = "conv2d_data_gradient";
constexpr const char* kWeight = "conv2d_weight_gradient";

// --- checks ----------------------------------------------------------------------------------

void check_options(const char* op, const ConvOptions& o) {
  if (o.stride.height < 1 || o.stride.width < 1)
    fail<ValueError>(op, ": stride must be at least 1, got ", o.stride);
  if (o.dilation.height < 1 || o.dilation.width < 1)
    fail<ValueError>(op, ": dilation must be at least 1, got ", o.dilation);
  if (std::min({o.before.height, o.before.width, o.after.height, o.after.width}) < 0)
    fail<ValueError>(op, ": padding must be at least 0, got ", o.before, " before and ", o.after, " after");
  if (o.groups < 1) fail<ValueError>(op, ": groups must be at least 1, got ", o.groups);
}

void check_images(const char* op, const char* name, const View& v) {
  check_factor_dtype(op, name, v);
  if (v.rank != 4)
    fail<ValueError>(op, ": ", name, " must have shape (N, C, H, W), got ", Shape{v},
                     "; add the axes that are missing with reshape");
}

void check_weight(const char* op, const View& weight) {
  if (weight.rank != 4)
    fail<ValueError>(op, ": weight must have shape (O, C / groups, kernel height, kernel width), got ",
                     Shape{weight});
}

// Positions of a kernel along one axis.
std::int64_t positions(const char* op, std::int64_t size, std::int64_t kernel, std::int64_t stride,
                       std::int64_t padding, std::int64_t dilation) {
  if (kernel < 1) fail<ValueError>(op, ": a kernel must have at least one element, got size ", kernel);
  const std::int64_t span = dilation * (kernel - 1) + 1;
  if (span > size + padding)
    fail<ValueError>(op, ": the kernel spans ", span, " elements, but the padded input has ", size + padding,
                     " (", size, " and ", padding, " of padding); pad more or take a smaller kernel");
  return (size + padding - span) / stride + 1;
}

ConvGeometry geometry(const char* op, const std::int64_t (&x)[4], std::int64_t outputs, Extents kernel,
                      const ConvOptions& o) {
  check_options(op, o);
  if (x[1] % o.groups || outputs % o.groups)
    fail<ValueError>(op, ": channels must be a multiple of groups=", o.groups, ", got ", x[1], " in and ",
                     outputs, " out");
  const Extents y{
      positions(op, x[2], kernel.height, o.stride.height, o.before.height + o.after.height,
                o.dilation.height),
      positions(op, x[3], kernel.width, o.stride.width, o.before.width + o.after.width, o.dilation.width)};
  return {x[0],   x[1],     outputs,  o.groups,   {x[2], x[3]}, y,
          kernel, o.stride, o.before, o.dilation, o.precision};
}

ConvGeometry forward_geometry(const View& x, const View& weight, const ConvOptions& o) {
  check_images(kForward, "x", x);
  check_same_dtype(kForward, "weight", weight, "x", x);
  check_weight(kForward, weight);
  const ConvGeometry g = geometry(kForward, {x.shape[0], x.shape[1], x.shape[2], x.shape[3]}, weight.shape[0],
                                  {weight.shape[2], weight.shape[3]}, o);
  if (weight.shape[1] != g.channels / g.groups)
    fail<ValueError>(kForward, ": weight has ", weight.shape[1], " input channels, expected ",
                     g.channels / g.groups, " (x has ", g.channels, ", groups=", g.groups, ")");
  return g;
}

void check_gradient_of_result(const char* op, const View& dy, const ConvGeometry& g) {
  const std::int64_t expected[] = {g.images, g.outputs, g.y.height, g.y.width};
  if (!std::equal(expected, expected + 4, dy.shape))
    fail<ValueError>(op, ": dy has shape ", Shape{dy}, ", expected (", g.images, ", ", g.outputs, ", ",
                     g.y.height, ", ", g.y.width, ") like the result of conv2d");
}

ConvGeometry data_geometry(const View& dy, const View& weight, Extents size, const ConvOptions& o) {
  check_images(kData, "dy", dy);
  check_same_dtype(kData, "weight", weight, "dy", dy);
  check_weight(kData, weight);
  const ConvGeometry g = geometry(kData, {dy.shape[0], weight.shape[1] * o.groups, size.height, size.width},
                                  weight.shape[0], {weight.shape[2], weight.shape[3]}, o);
  check_gradient_of_result(kData, dy, g);
  return g;
}

ConvGeometry weight_geometry(const View& dy, const View& x, Extents kernel, const ConvOptions& o) {
  check_images(kWeight, "dy", dy);
  check_images(kWeight, "x", x);
  check_same_dtype(kWeight, "x", x, "dy", dy);
  const ConvGeometry g =
      geometry(kWeight, {x.shape[0], x.shape[1], x.shape[2], x.shape[3]}, dy.shape[1], kernel, o);
  check_gradient_of_result(kWeight, dy, g);
  return g;
}

// One channel can be either: its stride says which is meant.
bool channels_last(const View& v) {
  return v.strides[1] == 1 && (v.shape[1] == 1 ? v.shape[2] * v.shape[3] > 1 : !v.contiguous());
}

// --- launches --------------------------------------------------------------------------------

double multiply_adds(const ConvGeometry& g) {
  return static_cast<double>(g.images * g.y.height * g.y.width) * static_cast<double>(g.outputs) *
         static_cast<double>(g.channels / g.groups * g.kernel.height * g.kernel.width);
}

void visit_options(Fields& f, const ConvGeometry& g, Precision precision) {
  f.number("stride height", static_cast<double>(g.stride.height));
  f.number("stride width", static_cast<double>(g.stride.width));
  f.number("padding above", static_cast<double>(g.padding.height));
  f.number("padding left", static_cast<double>(g.padding.width));
  f.number("dilation height", static_cast<double>(g.dilation.height));
  f.number("dilation width", static_cast<double>(g.dilation.width));
  f.number("groups", static_cast<double>(g.groups));
  f.number("precision", static_cast<double>(precision));
}

struct ForwardLaunch {
  static constexpr const char* kName = kForward;
  ConvGeometry geometry;
  Precision precision;
  View x, weight;
  std::optional<View> bias;
  Activation activation;
  View y;

  double flops() const { return 2 * multiply_adds(geometry); }
  double bytes() const { return x.bytes() + weight.bytes() + y.bytes(); }
  void run() const {
    if (const cuda::Table* table = table_for(y.device))
      return table->conv2d(geometry, scheme_for(precision), x, weight, bias, activation, y, current_stream());
    thalweg::conv2d(geometry, x, weight, bias, activation, y);
  }
  void visit(Fields& f) const {
    f.read(x);
    f.read(weight);
    f.read(bias);
    f.write(y);
    visit_options(f, geometry, precision);
    f.number("activation", static_cast<double>(activation));
  }
};

// Either gradient: out = gradient(a, b).
template <class Run>
struct GradientLaunch {
  static constexpr const char* kName = Run::kName;
  ConvGeometry geometry;
  Precision precision;
  View a, b, out;

  double flops() const { return 2 * multiply_adds(geometry); }
  double bytes() const { return a.bytes() + b.bytes() + out.bytes(); }
  void run() const {
    if (const cuda::Table* table = table_for(out.device))
      return (table->*Run::kOnTable)(geometry, scheme_for(precision), a, b, out, current_stream());
    Run::kOnCpu(geometry, a, b, out);
  }
  void visit(Fields& f) const {
    f.read(a);
    f.read(b);
    f.write(out);
    visit_options(f, geometry, precision);
  }
};

struct RunData {
  static constexpr const char* kName = kData;
  static constexpr auto kOnCpu = &thalweg::conv2d_data_gradient;
  static constexpr auto kOnTable = &cuda::Table::conv2d_data_gradient;
};

struct RunWeight {
  static constexpr const char* kName = kWeight;
  static constexpr auto kOnCpu = &thalweg::conv2d_weight_gradient;
  static constexpr auto kOnTable = &cuda::Table::conv2d_weight_gradient;
};

}  // namespace

ConvShape conv2d_shape(const View& x, const View& weight, const ConvOptions& options) {
  const ConvGeometry g = forward_geometry(x, weight, options);
  return {{g.images, g.outputs, g.y.height, g.y.width}, channels_last(x)};
}

ConvShape conv2d_data_gradient_shape(const View& dy, const View& weight, Extents size,
                                     const ConvOptions& options) {
  const ConvGeometry g = data_geometry(dy, weight, size, options);
  return {{g.images, g.channels, g.x.height, g.x.width}, channels_last(dy)};
}

ConvShape conv2d_weight_gradient_shape(const View& dy, const View& x, Extents kernel,
                                       const ConvOptions& options) {
  const ConvGeometry g = weight_geometry(dy, x, kernel, options);
  return {{g.outputs, g.channels / g.groups, kernel.height, kernel.width}, false};
}

void conv2d(const View& x, const View& weight, const std::optional<View>& bias, Activation activation,
            const ConvOptions& options, const View& y) {
  const ConvGeometry g = forward_geometry(x, weight, options);
  if (bias) {
    if (x.dtype == DType::bf16 && bias->dtype == DType::f32)
      check_same_device(kForward, "bias", *bias, "x", x);
    else
      check_same_dtype(kForward, "bias", *bias, "x", x);
    check_length(kForward, "bias", *bias, g.outputs);
  }
  launch(ForwardLaunch{g, options.precision, x, weight, bias, activation, y});
}

void conv2d_data_gradient(const View& dy, const View& weight, const ConvOptions& options, const View& dx) {
  const ConvGeometry g = data_geometry(dy, weight, {dx.shape[2], dx.shape[3]}, options);
  launch(GradientLaunch<RunData>{g, options.precision, dy, weight, dx});
}

void conv2d_weight_gradient(const View& dy, const View& x, const ConvOptions& options, const View& dw) {
  const ConvGeometry g = weight_geometry(dy, x, {dw.shape[2], dw.shape[3]}, options);
  launch(GradientLaunch<RunWeight>{g, options.precision, dy, x, dw});
}

}  // namespace thalweg::ops
