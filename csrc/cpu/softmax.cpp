#include "cpu/softmax.h"

#include <algorithm>
#include <limits>

#include "base/parallel.h"
#include "base/scratch.h"
#include "base/tree.h"
#include "cpu/axes.h"
#include "cpu/isa.h"

namespace thalweg::cpu {
namespace {

// Rows along one axis of a view. Kernels want them contiguous; others pass through a buffer.
template <class T>
struct Rows {
  T* data;
  Axes others;
  std::int64_t length, stride;

  Rows(const View& v, int axis) : data(v.as<T>()), length(v.shape[axis]), stride(v.strides[axis]) {
    for (int i = 0; i < v.rank; ++i)
      if (i != axis) others.append(v.shape[i], v.strides[i]);
    if (length == 1) stride = 1;
  }

  T* at(std::int64_t row) const { return data + others.offset(row); }

  const T* read(std::int64_t row, T* buffer) const {
    if (stride == 1) return at(row);
    for (std::int64_t i = 0; i < length; ++i) buffer[i] = at(row)[i * stride];
    return buffer;
  }

  T* place(std::int64_t row, T* buffer) const { return stride == 1 ? at(row) : buffer; }

  void write(std::int64_t row, const T* buffer) const {
    if (stride != 1)
      for (std::int64_t i = 0; i < length; ++i) at(row)[i * stride] = buffer[i];
  }
};

// f(begin, end, buffer of `buffers` rows), with enough work for each thread: an exponential costs
// about as much as eight additions.
template <class T, class F>
void for_rows(std::int64_t rows, std::int64_t length, int buffers, const F& f) {
  if (length == 0) return;
  const std::int64_t grain = std::max<std::int64_t>(1, 4096 / length);
  parallel_for(rows, grain, [&](std::int64_t begin, std::int64_t end) {
    const Scratch<T> buffer(buffers * length);
    f(begin, end, buffer.get());
  });
}

template <class T>
void softmax_typed(SoftmaxForm form, const View& x, const View& y, int axis) {
  const Rows<T> in(x, axis), out(y, axis);
  const auto& row = kernels().softmax.row<T>();
  const auto kernel = form == SoftmaxForm::plain ? row.softmax : row.log_softmax;
  const std::int64_t n = in.length;
  for_rows<T>(in.others.elements(), n, in.stride == 1 && out.stride == 1 ? 0 : 2,
              [&](std::int64_t begin, std::int64_t end, T* buffer) {
                for (std::int64_t r = begin; r < end; ++r) {
                  kernel(in.read(r, buffer), out.place(r, buffer + n), n);
                  out.write(r, buffer + n);
                }
              });
}

template <class T>
void softmax_backward_typed(SoftmaxForm form, const View& dy, const View& y, const View& dx, int axis) {
  const Rows<T> gradient(dy, axis), forward(y, axis), out(dx, axis);
  const auto& row = kernels().softmax.row<T>();
  const auto kernel = form == SoftmaxForm::plain ? row.softmax_backward : row.log_softmax_backward;
  const std::int64_t n = out.length;
  const bool direct = gradient.stride == 1 && forward.stride == 1 && out.stride == 1;
  for_rows<T>(out.others.elements(), n, direct ? 0 : 3, [&](std::int64_t begin, std::int64_t end, T* buffer) {
    for (std::int64_t r = begin; r < end; ++r) {
      kernel(gradient.read(r, buffer), forward.read(r, buffer + n), out.place(r, buffer + 2 * n), n);
      out.write(r, buffer + 2 * n);
    }
  });
}

std::int64_t label_at(const View& target, std::int64_t row) {
  const std::int64_t at = row * target.strides[0];
  return target.dtype == DType::i32 ? target.as<std::int32_t>()[at] : target.as<std::int64_t>()[at];
}

template <class T>
void cross_entropy_typed(const View& logits, const View& target, double smoothing, LossReduction reduction,
                         const View& loss, const View& dlogits) {
  const Rows<T> in(logits, 1);
  const std::int64_t rows = logits.shape[0], n = in.length;
  const bool mean = reduction == LossReduction::mean;
  const double scale = mean ? 1.0 / static_cast<double>(rows) : 1.0;
  const Scratch<double> losses(rows);
  const auto kernel = kernels().softmax.row<T>().cross_entropy;
  for_rows<T>(rows, n, in.stride == 1 ? 0 : 1, [&](std::int64_t begin, std::int64_t end, T* buffer) {
    for (std::int64_t r = begin; r < end; ++r)
      losses[r] =
          kernel(in.read(r, buffer), dlogits.as<T>() + r * n, n, label_at(target, r), smoothing, scale);
  });
  if (reduction == LossReduction::none) {
    std::transform(losses.get(), losses.get() + rows, loss.as<T>(),
                   [](double v) { return static_cast<T>(v); });
    return;
  }
  const std::int64_t blocks = tree_blocks(rows);
  const auto block_sum = kernels().reduce.block<double>(Reduction::sum).row;
  for (std::int64_t b = 0; b < blocks; ++b)
    losses[b] = block_sum(&losses[b * kTreeBlock], std::min(kTreeBlock, rows - b * kTreeBlock));
  const double total = sum_pairwise(losses.get(), blocks);
  *loss.as<T>() = static_cast<T>(mean ? total / static_cast<double>(rows) : total);
}

}  // namespace

void softmax(SoftmaxForm form, const View& x, const View& y, int axis) {
  with_float_type(x.dtype, [&](auto zero) { softmax_typed<decltype(zero)>(form, x, y, axis); });
}

void softmax_backward(SoftmaxForm form, const View& dy, const View& y, const View& dx, int axis) {
  with_float_type(y.dtype, [&](auto zero) { softmax_backward_typed<decltype(zero)>(form, dy, y, dx, axis); });
}

void softmax_cross_entropy(const View& logits, const View& target, double label_smoothing,
                           LossReduction reduction, const View& loss, const View& dlogits) {
  with_float_type(logits.dtype, [&](auto zero) {
    cross_entropy_typed<decltype(zero)>(logits, target, label_smoothing, reduction, loss, dlogits);
  });
}

}  // namespace thalweg::cpu
