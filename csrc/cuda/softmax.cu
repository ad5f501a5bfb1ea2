// Softmax along one axis, its logarithm, their gradients, and cross-entropy on logits with its gradient.
// The same sums in the same order as cpu/kernels/softmax.cpp, hence the same bits.
#include "base/math.h"
#include "cuda/families.h"
#include "cuda/launch.cuh"
#include "cuda/layout.cuh"
#include "cuda/row_reduce.cuh"
#include "rules/reduce.h"

namespace thalweg::cuda {
namespace {

// Rows along one axis of up to three arrays.
template <int kArrays>
struct Rows {
  Layout<kArrays> others;
  std::int64_t count, length, strides[kArrays];
};

template <int kArrays>
Rows<kArrays> rows_of(const View* const (&views)[kArrays], int axis) {
  Rows<kArrays> rows{};
  rows.length = views[0]->shape[axis];
  for (int i = 0; i < views[0]->rank; ++i) {
    std::int64_t strides[kArrays];
    for (int a = 0; a < kArrays; ++a) strides[a] = views[a]->strides[i];
    if (i != axis) rows.others.append(views[0]->shape[i], strides);
  }
  for (int a = 0; a < kArrays; ++a) rows.strides[a] = views[a]->strides[axis];
  rows.count = rows.others.elements();
  return rows;
}

template <class T>
struct Row {
  T* data;
  std::int64_t stride;
  __device__ T& operator[](std::int64_t i) const { return data[i * stride]; }
};

template <class T, int kArrays>
__device__ Row<T> row_of(const Rows<kArrays>& rows, int array, T* data, std::int64_t row) {
  return {data + rows.others.offsets(row).of[array], rows.strides[array]};
}

// y[i] = exp(x[i] - max); returns Σ y.
template <class T, unsigned kGroups>
__device__ double exponentials(const Team<kGroups>& team, std::int64_t n, std::int64_t longest,
                               const Row<const T>& x, const Row<T>& y, T max) {
  team.for_elements(n, [&](std::int64_t i) { y[i] = exp(x[i] - max); });
  return team.template reduce<Sum>(n, longest, [&](std::int64_t i) { return static_cast<double>(y[i]); });
}

template <class T, unsigned kGroups>
__device__ T maximum_of(const Team<kGroups>& team, std::int64_t n, std::int64_t longest,
                        const Row<const T>& x) {
  return static_cast<T>(
      team.template reduce<Max>(n, longest, [&](std::int64_t i) { return static_cast<double>(x[i]); }));
}

template <class T, unsigned kGroups, bool kLogarithm>
__global__ void __launch_bounds__(kRowThreads) softmax_rows(Rows<2> rows, const T* x_data, T* y_data) {
  THALWEG_SHARED(double, shared, [kGroupsOfBlock]);
  const Team<kGroups> team(shared);
  const std::int64_t n = team.row < rows.count ? rows.length : 0, row = n ? team.row : 0;
  const auto x = row_of(rows, 0, x_data, row);
  const auto y = row_of(rows, 1, y_data, row);
  const T max = maximum_of<T>(team, n, rows.length, x);
  const double total = exponentials<T>(team, n, rows.length, x, y, max);
  if constexpr (kLogarithm) {
    const T log_sum = static_cast<T>(log(total));
    team.for_elements(n, [&](std::int64_t i) { y[i] = (x[i] - max) - log_sum; });
  } else {
    const T factor = static_cast<T>(1.0 / total);
    team.for_elements(n, [&](std::int64_t i) { y[i] *= factor; });
  }
}

// dx = y (dy - Σ dy y); of the logarithm: dx = dy - exp(y) Σ dy
template <class T, unsigned kGroups, bool kLogarithm>
__global__ void __launch_bounds__(kRowThreads)
    softmax_backward_rows(Rows<3> rows, const T* dy_data, const T* y_data, T* dx_data) {
  THALWEG_SHARED(double, shared, [kGroupsOfBlock]);
  const Team<kGroups> team(shared);
  const std::int64_t n = team.row < rows.count ? rows.length : 0, row = n ? team.row : 0;
  const auto dy = row_of(rows, 0, dy_data, row), y = row_of(rows, 1, y_data, row);
  const auto dx = row_of(rows, 2, dx_data, row);
  const T dot = static_cast<T>(team.template reduce<Sum>(n, rows.length, [&](std::int64_t i) {
    const auto g = static_cast<double>(dy[i]);
    return kLogarithm ? g : g * static_cast<double>(y[i]);
  }));
  team.for_elements(
      n, [&](std::int64_t i) { dx[i] = kLogarithm ? dy[i] - exp(y[i]) * dot : y[i] * (dy[i] - dot); });
}

struct Labels {
  const void* data;
  std::int64_t stride;
  bool wide;
  __device__ std::int64_t at(std::int64_t row) const {
    return wide ? static_cast<const std::int64_t*>(data)[row * stride]
                : static_cast<const std::int32_t*>(data)[row * stride];
  }
};

struct LossOptions {
  double smoothing, scale;
};

// loss = -Σ q_k log p_k with q = (1 - smoothing) onehot(label) + smoothing / n; dx = scale (p - q)
template <class T, unsigned kGroups>
__global__ void __launch_bounds__(kRowThreads)
    cross_entropy_rows(Rows<2> rows, const T* x_data, T* dx_data, Labels labels, LossOptions options,
                       double* losses) {
  THALWEG_SHARED(double, shared, [kGroupsOfBlock]);
  const Team<kGroups> team(shared);
  const std::int64_t n = team.row < rows.count ? rows.length : 0, row = n ? team.row : 0;
  const auto x = row_of(rows, 0, x_data, row);
  const auto dx = row_of(rows, 1, dx_data, row);
  const T max = maximum_of<T>(team, n, rows.length, x);
  const double shift = static_cast<double>(max);
  const double total = exponentials<T>(team, n, rows.length, x, dx, max);
  const double uniform = options.smoothing / static_cast<double>(n);
  const double spread =
      team.template reduce<Sum>(options.smoothing != 0 ? n : 0, rows.length,
                                [&](std::int64_t i) { return static_cast<double>(x[i]) - shift; });
  if (n == 0) return;
  const std::int64_t label = labels.at(row);
  const T factor = static_cast<T>(options.scale / total), offset = static_cast<T>(options.scale * uniform);
  team.for_elements(n, [&](std::int64_t i) {
    T gradient = dx[i] * factor - offset;
    if (i == label) gradient -= static_cast<T>(options.scale * (1 - options.smoothing));
    dx[i] = gradient;
  });
  if (team.lane != 0 || team.group != 0) return;
  double loss = log(total) - (1 - options.smoothing) * (static_cast<double>(x[label]) - shift);
  if (options.smoothing != 0) loss -= uniform * spread;
  losses[row] = loss;
}

template <class T>
__global__ void store_losses(const double* losses, std::int64_t n, T* loss, std::int64_t stride) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kRowThreads + threadIdx.x;
  if (i < n) loss[i * stride] = static_cast<T>(losses[i]);
}

// *bad = the first row whose label is no class, and that label; row `rows` if there is none.
__global__ void find_bad_label(Labels labels, std::int64_t rows, std::int64_t classes, BadLabel* bad) {
  THALWEG_SHARED(std::int64_t, found, [kRowThreads]);
  std::int64_t mine = rows;
  for (std::int64_t row = threadIdx.x; row < rows && mine == rows; row += kRowThreads)
    if (labels.at(row) < 0 || labels.at(row) >= classes) mine = row;
  found[threadIdx.x] = mine;
  barrier();
  if (threadIdx.x != 0) return;
  for (unsigned t = 1; t < kRowThreads; ++t) mine = found[t] < mine ? found[t] : mine;
  *bad = {mine, mine < rows ? labels.at(mine) : 0};
}

Labels labels_of(const View& target) { return {target.data, target.strides[0], target.dtype == DType::i64}; }

// Calls f with the number of groups that a row of n needs.
template <class F>
void with_groups(std::int64_t n, const F& f) {
  if (n <= kTreeBlock)
    f(std::integral_constant<unsigned, 1>{});
  else
    f(std::integral_constant<unsigned, kGroupsOfBlock>{});
}

unsigned row_blocks(std::int64_t rows, unsigned groups) { return blocks_for(rows, kGroupsOfBlock / groups); }

}  // namespace

void softmax(cpu::SoftmaxForm form, const View& x, const View& y, int axis, Stream stream) {
  if (y.elements() == 0) return;
  const auto rows = rows_of<2>({&x, &y}, axis);
  with_float_type(y.dtype, [&]<class T>(T) {
    with_groups(rows.length, [&](auto groups) {
      const auto kernel = form == cpu::SoftmaxForm::plain ? softmax_rows<T, groups(), false>
                                                          : softmax_rows<T, groups(), true>;
      launch(kernel, row_blocks(rows.count, groups()), kRowThreads, 0, stream, rows, x.as<const T>(),
             y.as<T>());
    });
  });
}

void softmax_backward(cpu::SoftmaxForm form, const View& dy, const View& y, const View& dx, int axis,
                      Stream stream) {
  if (dx.elements() == 0) return;
  const auto rows = rows_of<3>({&dy, &y, &dx}, axis);
  with_float_type(dx.dtype, [&]<class T>(T) {
    with_groups(rows.length, [&](auto groups) {
      const auto kernel = form == cpu::SoftmaxForm::plain ? softmax_backward_rows<T, groups(), false>
                                                          : softmax_backward_rows<T, groups(), true>;
      launch(kernel, row_blocks(rows.count, groups()), kRowThreads, 0, stream, rows, dy.as<const T>(),
             y.as<const T>(), dx.as<T>());
    });
  });
}

void softmax_cross_entropy(const View& logits, const View& target, double label_smoothing,
                           cpu::LossReduction reduction, const View& loss, const View& dlogits,
                           Stream stream) {
  const std::int64_t n = logits.shape[0];
  const auto rows = rows_of<2>({&logits, &dlogits}, 1);
  const bool mean = reduction == cpu::LossReduction::mean;
  const LossOptions options{label_smoothing, mean ? 1.0 / static_cast<double>(n) : 1.0};
  const Scratch losses(static_cast<std::size_t>(n) * sizeof(double), stream), total(sizeof(double), stream);
  with_float_type(logits.dtype, [&]<class T>(T) {
    if (logits.elements() > 0)
      with_groups(rows.length, [&](auto groups) {
        launch(cross_entropy_rows<T, groups()>, row_blocks(n, groups()), kRowThreads, 0, stream, rows,
               logits.as<const T>(), dlogits.as<T>(), labels_of(target), options, losses.as<double>());
      });
    if (reduction == cpu::LossReduction::none) {
      launch(store_losses<T>, blocks_for(n, kRowThreads), kRowThreads, 0, stream, losses.as<double>(), n,
             loss.as<T>(), n > 0 ? loss.strides[0] : 1);
      return;
    }
    View all, sum;
    all.data = losses.as<void>(), sum.data = total.as<void>();
    all.dtype = sum.dtype = DType::f64;
    all.rank = 1, all.shape[0] = n, all.strides[0] = 1;
    reduce({Reduction::sum, mean, 1, all, sum}, stream);
    launch(store_losses<T>, 1, kRowThreads, 0, stream, total.as<double>(), 1, loss.as<T>(), 1);
  });
}

std::optional<BadLabel> first_bad_label(const View& target, std::int64_t classes, Stream stream) {
  const std::int64_t rows = target.shape[0];
  const Scratch bad(sizeof(BadLabel), stream);
  launch(find_bad_label, 1, kRowThreads, 0, stream, labels_of(target), rows, classes, bad.as<BadLabel>());
  BadLabel result;
  copy_to_host(&result, bad.as<void>(), sizeof result, stream);
  return result.row < rows ? std::optional(result) : std::nullopt;
}

}  // namespace thalweg::cuda
