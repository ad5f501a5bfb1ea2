// Kernels of one element: matrix products.
#include <utility>

#include "base/parallel.h"
#include "cpu/conv_correlation.h"
#include "cpu/gemm.h"

namespace thalweg {
namespace {

// Bias and activation of results whose channels are contiguous planes.
template <class T>
void finish_planes(const Correlation<T>& c) {
  const std::int64_t outputs = c.groups * c.outputs, pixels = c.result_size.height * c.result_size.width;
  parallel_for(c.images * outputs, ceil_div(1 << 14, pixels), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      T* const plane = c.result.at(i / outputs, 0, 0) + i % outputs * c.result.channel;
      const T bias = c.bias ? c.bias[i % outputs * c.bias_stride] : T(0);
      for (std::int64_t j = 0; c.bias && j < pixels; ++j) plane[j] += bias;
      if (c.activation != Activation::identity)
        kernels().gemm.template family<T>().finish(plane, 0, 1, static_cast<int>(pixels), nullptr,
                                                   c.activation);
    }
  });
}

}  // namespace

// A kernel of one element at step 1 is a matrix product for each image and group; true if it was done.
template <class T>
bool correlate_pixelwise(const Correlation<T>& c) {
  const Extents size = c.result_size;
  const bool same = size.height == c.source_size.height && size.width == c.source_size.width &&
                    c.taps.count() == 1 && c.taps.rows[0].offset == 0 && c.taps.columns[0].offset == 0 &&
                    c.step.height == 1 && c.step.width == 1;
  const auto flat = [&](const auto& images) {
    return size.height == 1 || images.row == size.width * images.column;
  };
  if (!same || !flat(c.source) || !flat(c.result)) return false;
  const bool transposed = c.result.channel != 1;  // outputs as rows
  if ((transposed && c.result.column != 1) || (!transposed && c.groups > 1 && c.bias)) return false;
  GemmProblem p;
  p.dtype = dtype_of<T>;
  p.m = size.height * size.width;
  p.n = c.outputs;
  p.k = c.inputs;
  p.batch_rank = 2;
  p.batch[0] = c.images;
  p.batch[1] = c.groups;
  p.a = {const_cast<T*>(c.source.data),
         c.source.column,
         c.source.channel,
         {c.source.image, c.inputs * c.source.channel}};
  p.b = {
      const_cast<T*>(c.weight.data + c.taps.weight(0)), c.weight.input, c.weight.output, {0, c.weight.group}};
  p.c = {c.result.data, c.result.column, c.result.channel, {c.result.image, c.outputs * c.result.channel}};
  if (!transposed) {
    p.bias = c.bias;
    p.bias_stride = c.bias_stride;
    p.activation = c.activation;
  }
  if (transposed) {
    std::swap(p.m, p.n);
    std::swap(p.a, p.b);
    for (GemmProblem::Operand* operand : {&p.a, &p.b, &p.c}) std::swap(operand->row, operand->col);
  } else if (c.groups == 1 && c.source.image == p.m * c.source.column &&
             c.result.image == p.m * c.result.column) {
    p.m *= c.images;
    p.batch[0] = 1;
  }
  if (p.n == 1) return false;  // a single column would be summed in another order
  gemm(p);
  if (transposed && (c.bias || c.activation != Activation::identity)) finish_planes(c);
  return true;
}
template bool correlate_pixelwise(const Correlation<float>&);
template bool correlate_pixelwise(const Correlation<double>&);

}  // namespace thalweg
