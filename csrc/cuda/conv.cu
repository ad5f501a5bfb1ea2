// 2-D convolution and its gradients as products, one operand of which is gathered from an image while its
// panels are loaded (implicit GEMM): nothing is lowered in memory.
//
// Blocks of K, and the order within them, are those of cpu/conv.cpp and cpu/conv_weight.cpp, whose bits
// the FMA kernel gives.
#include <algorithm>
#include <type_traits>

#include "cuda/gathered.cuh"

namespace thalweg::cuda {
namespace {

// --- products -----------------------------------------------------------------------------------

template <class T, class Blocks = EqualBlocks>
using Convolution = Product<T, Gathered<T>, Gathered<T>, Positions, Blocks>;

// Channels of a group, and the strides of its weights.
struct Side {
  std::int64_t inputs, outputs, weight_group, weight_input, weight_output;
};

// result[n, i, j, g, o] = sum over taps and channels of source[n, i * step + row, j * step + column, g, c]
// weight[g, o, c, tap]
template <class T>
Convolution<T> correlation(const ConvGeometry& g, const Taps& taps, const Side& side,
                           const Images<const T>& source, Extents source_size, Extents step, const T* weight,
                           const std::optional<View>& bias, const Images<T>& result, Extents result_size) {
  Convolution<T> p{};
  p.m = g.images * result_size.height * result_size.width, p.n = side.outputs;
  const Axis k = tapped_channels(taps, side.inputs, source);
  p.blocks = EqualBlocks::of<T>(k.count);
  p.batch.append(g.groups, {side.inputs * source.channel, side.weight_group, side.outputs * result.channel,
                            bias ? side.outputs * bias->strides[0] : 0});
  if (bias) p.bias = bias->as<const T>(), p.bias_stride = bias->strides[0];
  p.a = {source.data,
         pixels(g.images, result_size, source, step),
         k,
         narrow(source_size.height),
         narrow(source_size.width),
         source.channel == 1};
  p.b = {weight,
         line(side.outputs, side.weight_output),
         tapped_weights(taps, side.inputs, side.weight_input),
         1,
         1,
         true};
  p.c = result.data, p.c_row = {pixels(g.images, result_size, result, {1, 1})}, p.c_col = result.channel;
  return p;
}

template <class P>
void start(const P& p, GemmScheme scheme, Stream stream) {
  if (p.m == 0 || p.n == 0) return;
  if constexpr (std::is_same_v<typename P::Value, double>)
    launch_fma(p, stream);
  else
    launch_scheme(p, scheme, stream);
}

// --- gradient of weights --------------------------------------------------------------------------

constexpr std::int64_t kSplitBytes = 64 << 20;  // of the sums of blocks at a time

// c[element] = the sums of `blocks` blocks of K in order, behind what it holds where `accumulate`.
template <class T>
struct BlockSums {
  const T* sums;
  std::int64_t elements, blocks, columns, c_col;
  Axis rows;
  ProductBatch batch;
  T* c;
  bool accumulate;
};

template <class T>
__global__ void add_blocks(__grid_constant__ Argument<BlockSums<T>> s) {
  const std::int64_t group_elements = s.rows.count * s.columns;
  for (std::int64_t e = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; e < s.elements;
       e += std::int64_t{gridDim.x} * blockDim.x) {
    const std::int64_t in_group = e % group_elements;
    T& c = s.c[s.batch.offsets(e / group_elements).of[2] + s.rows.place(in_group / s.columns).offset +
               in_group % s.columns * s.c_col];
    T sum = s.accumulate ? c + s.sums[e] : s.sums[e];
    for (std::int64_t b = 1; b < s.blocks; ++b) sum = sum + s.sums[b * s.elements + e];
    c = sum;
  }
}

// Blocks begin … begin + count of all, counted from 0.
struct SomePixelBlocks : PixelBlocks {
  int first;
  THALWEG_HOST_DEVICE std::int64_t begin(int block) const { return PixelBlocks::begin(first + block); }
};

template <class T>
void weight_gradient(const ConvGeometry& g, GemmScheme scheme, const View& dy_view, const View& x_view,
                     const View& dw, Stream stream) {
  const Images<const T> dy(dy_view), x(x_view);
  const std::int64_t inputs = g.channels / g.groups, outputs = g.outputs / g.groups;
  const Taps taps = all_taps(g, dw);
  const Axis rows = tapped_channels(taps, inputs, x);
  const Axis weights = tapped_weights(taps, inputs, dw.strides[1]);
  const Blocks blocks(g.images, g.y.height, static_cast<double>(g.y.width), kConvDepth<T>, g.images);

  Convolution<T, SomePixelBlocks> p{};
  p.m = rows.count, p.n = outputs;
  p.a = {x.data,        rows, pixels(g.images, g.y, x, g.stride), narrow(g.x.height), narrow(g.x.width),
         x.channel != 1};
  Axis dy_pixels = pixels(g.images, g.y, dy, {1, 1});
  for (int i = 0; i < 3; ++i) dy_pixels.row[i] = dy_pixels.column[i] = 0;
  p.b = {dy.data, line(outputs, dy.channel), dy_pixels, 1, 1, dy.channel != 1};
  p.batch.append(g.groups, {inputs * x.channel, outputs * dy.channel, outputs * dw.strides[0], 0});

  BlockSums<T> sums{
      nullptr, g.groups * rows.count * outputs, 0, outputs, dw.strides[0], weights, p.batch, dw.as<T>(),
      false};
  const std::int64_t count = blocks.count();
  const auto block_bytes = static_cast<double>(sums.elements) * sizeof(T);
  const std::int64_t most = std::clamp<std::int64_t>(static_cast<std::int64_t>(kSplitBytes / block_bytes), 1,
                                                     std::max<std::int64_t>(1, count));
  const Scratch scratch(static_cast<std::size_t>(most * sums.elements) * sizeof(T), stream);
  sums.sums = scratch.as<T>();
  p.c = scratch.as<T>(), p.c_row = {line(p.m, outputs)}, p.c_col = 1, p.c_split = sums.elements;
  for (std::int64_t first = 0; first < std::max<std::int64_t>(1, count); first += most) {
    sums.blocks = std::clamp<std::int64_t>(count - first, 1, most);
    sums.accumulate = first > 0;
    p.splits = sums.blocks;
    p.blocks = {{sums.blocks, std::max<std::int64_t>(1, blocks.groups), blocks.parts, g.images, g.y.height,
                 g.y.width},
                static_cast<int>(first)};
    // Groups' sums follow each other.
    Convolution<T, SomePixelBlocks> part = p;
    part.batch = {};
    part.batch.append(g.groups, {inputs * x.channel, outputs * dy.channel, p.m * outputs, 0});
    start(part, scheme, stream);
    constexpr int kThreads = 256;
    launch(add_blocks<T>, blocks_for(sums.elements, kThreads, 4096), kThreads, 0, stream, sums);
  }
}

}  // namespace

void conv2d(const ConvGeometry& g, GemmScheme scheme, const View& x, const View& weight,
            const std::optional<View>& bias, Activation activation, const View& y, Stream stream) {
  with_float_type(y.dtype, [&]<class T>(T) {
    const std::int64_t outputs = g.outputs / g.groups;
    const Side side{g.channels / g.groups, outputs, outputs * weight.strides[0], weight.strides[1],
                    weight.strides[0]};
    auto p = correlation<T>(g, all_taps(g, weight), side, Images<const T>(x), g.x, g.stride,
                            weight.as<const T>(), bias, Images<T>(y), g.y);
    p.activation = activation;
    start(p, scheme, stream);
  });
}

// Each residue class of positions modulo the stride is a convolution of dy with step 1 and the taps that
// meet it, as in cpu/conv.cpp.
void conv2d_data_gradient(const ConvGeometry& g, GemmScheme scheme, const View& dy, const View& weight,
                          const View& dx, Stream stream) {
  with_float_type(dx.dtype, [&]<class T>(T) {
    const std::int64_t outputs = g.outputs / g.groups;
    const Side side{outputs, g.channels / g.groups, outputs * weight.strides[0], weight.strides[0],
                    weight.strides[1]};
    for (std::int64_t i = 0; i < std::min(g.stride.height, g.x.height); ++i)
      for (std::int64_t j = 0; j < std::min(g.stride.width, g.x.width); ++j) {
        Images<T> result(dx);
        result.data = result.at(0, i, j);
        result.row *= g.stride.height, result.column *= g.stride.width;
        const Extents size{ceil_div(g.x.height - i, g.stride.height),
                           ceil_div(g.x.width - j, g.stride.width)};
        start(correlation<T>(g, taps_of_phase(g, weight, {i, j}), side, Images<const T>(dy), g.y, {1, 1},
                             weight.as<const T>(), std::nullopt, result, size),
              scheme, stream);
      }
  });
}

void conv2d_weight_gradient(const ConvGeometry& g, GemmScheme scheme, const View& dy, const View& x,
                            const View& dw, Stream stream) {
  if (dw.elements() == 0) return;
  with_float_type(dw.dtype, [&]<class T>(T) { weight_gradient<T>(g, scheme, dy, x, dw, stream); });
}

}  // namespace thalweg::cuda
