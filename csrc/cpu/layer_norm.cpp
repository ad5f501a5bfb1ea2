#include "cpu/layer_norm.h"

#include <algorithm>
#include <vector>

#include "base/parallel.h"
#include "base/tree.h"
#include "cpu/contiguous.h"

namespace thalweg::cpu {
namespace {

template <class T>
std::vector<T> channel_vector(const std::optional<View>& v, std::int64_t n, T otherwise) {
  std::vector<T> values(static_cast<std::size_t>(n), otherwise);
  if (v)
    for (std::int64_t c = 0; c < n; ++c)
      values[static_cast<std::size_t>(c)] = v->as<const T>()[c * v->strides[0]];
  return values;
}

struct Rows {
  std::int64_t count = 1, length;

  explicit Rows(const View& x) : length(x.shape[x.rank - 1]) {
    for (int i = 0; i + 1 < x.rank; ++i) count *= x.shape[i];
  }

  std::int64_t for_elements(std::int64_t n) const {
    return std::max<std::int64_t>(1, n / std::max<std::int64_t>(1, length));
  }
};

template <class T>
void forward(const LayerNormArguments& a) {
  const Rows rows(a.x);
  const Contiguous x(a.x);
  const std::vector<T> gamma = channel_vector<T>(a.gamma, rows.length, 1);
  const std::vector<T> beta = channel_vector<T>(a.beta, rows.length, 0);
  const auto kernel = kernels().norm.layer.loops<T>().forward;
  parallel_for(rows.count, rows.for_elements(1 << 13), [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      const std::int64_t at = r * rows.length;
      const RowMoments moments =
          kernel(x.as<T>() + at, gamma.data(), beta.data(), a.y.as<T>() + at, rows.length, a.eps);
      a.mean.as<double>()[r] = moments.mean;
      a.rstd.as<double>()[r] = moments.rstd;
    }
  });
}

// The sums over rows are taken in tiles, whose number depends on the shape alone, and merged pairwise.
template <class T>
void backward(const LayerNormGradient& a) {
  const Rows rows(a.x);
  const Contiguous dy(a.dy), x(a.x);
  const std::vector<T> gamma = channel_vector<T>(a.gamma, rows.length, 1);
  const std::int64_t n = rows.length, height = rows.for_elements(1 << 16);
  const std::int64_t tiles = (rows.count + height - 1) / height;
  std::vector<double> partial(static_cast<std::size_t>(std::max<std::int64_t>(1, tiles) * 2 * n));
  const auto kernel = kernels().norm.layer.loops<T>().backward;
  parallel_for(tiles, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin * height; r < std::min(end * height, rows.count); ++r) {
      double* dgamma = partial.data() + r / height * 2 * n;
      kernel(dy.as<T>() + r * n, x.as<T>() + r * n, gamma.data(),
             {a.mean.as<const double>()[r], a.rstd.as<const double>()[r]}, a.dx.as<T>() + r * n, dgamma,
             dgamma + n, n);
    }
  });
  for (std::int64_t stride = 1; stride < tiles; stride *= 2)
    for (std::int64_t t = 0; t + stride < tiles; t += 2 * stride)
      for (std::int64_t i = 0; i < 2 * n; ++i)
        partial[static_cast<std::size_t>(t * 2 * n + i)] +=
            partial[static_cast<std::size_t>((t + stride) * 2 * n + i)];
  for (std::int64_t c = 0; c < n; ++c) {
    a.dgamma.as<T>()[c] = static_cast<T>(partial[static_cast<std::size_t>(c)]);
    a.dbeta.as<T>()[c] = static_cast<T>(partial[static_cast<std::size_t>(n + c)]);
  }
}

}  // namespace

void layer_norm(const LayerNormArguments& a) {
  with_float_type(a.x.dtype, [&]<class T>(T) { forward<T>(a); });
}

void layer_norm_backward(const LayerNormGradient& a) {
  with_float_type(a.x.dtype, [&]<class T>(T) { backward<T>(a); });
}

}  // namespace thalweg::cpu
