#include "cpu/pool.h"

#include "base/parallel.h"
#include "cpu/laid.h"
#include "cpu/pool_planes.h"
#include "cpu/pool_rows.h"

namespace thalweg::cpu {
namespace {

template <class F>
void with_index_type(const View& index, F&& f) {
  if (index.dtype == DType::u8)
    f(std::uint8_t{});
  else
    f(std::int32_t{});
}

// An array that a pass reads or writes, on the grid of its results or on that of what they see.
template <class E>
struct Operand {
  const View& view;
  bool written, seen;

  Steps steps(bool last) const {
    return last ? Steps{view.strides[2], view.strides[3]} : side_by_side(view.shape[3]);
  }
  Image<E> image(std::int64_t n) const { return {view.as<E>() + n * view.strides[0], steps(true)}; }
};

template <class E>
Operand<E> seen(const View& v) {
  return {v, false, true};
}
template <class E>
Operand<E> result(const View& v) {
  return {v, true, false};
}

constexpr std::int64_t kRowWork = 1 << 13;  // elements: about 3 µs
constexpr std::int64_t kSlab = 1 << 15;     // elements that stay in L2

// work(row, n, images of the operands) for all rows of all images, n channels or planes at once;
// `results` is shaped like what is computed.
template <class Rows, class Work, class... E>
void for_rows(bool last, const View& results, const Rows& rows, const Work& work, Operand<E>... operands) {
  const std::int64_t height = results.shape[2], width = results.shape[3], channels = results.shape[1];
  if (last) {
    const std::int64_t grain =
        std::max<std::int64_t>(1, kRowWork / std::max<std::int64_t>(1, width * channels));
    parallel_for(results.shape[0] * height, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) work(r % height, channels, operands.image(r / height)...);
    });
    return;
  }
  const std::int64_t most = std::max({operands.view.shape[2] * operands.view.shape[3]...}) * kPlanes;
  const std::int64_t strips = std::min(height, ceil_div(most, kSlab)), strip = ceil_div(height, strips);
  const std::int64_t groups = ceil_div(results.shape[0] * channels, kPlanes);
  parallel_for(groups * strips, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t unit = begin; unit < end; ++unit) {
      const std::int64_t plane = unit / strips * kPlanes, first = std::min(height, unit % strips * strip);
      const std::int64_t stop = std::min(height, first + strip);
      std::int64_t top = first < stop ? rows.top(first) : 0, bottom = top;
      for (std::int64_t o = first; o < stop; ++o)
        top = std::min(top, rows.top(o)), bottom = std::max(bottom, rows.bottom(o));
      const auto pass = [&](const Slab<E>&... slabs) {
        ((operands.written ? void() : slabs.load()), ...);
        for (std::int64_t o = first; o < stop; ++o) work(o, kPlanes, slabs.image()...);
        ((operands.written ? slabs.store() : void()), ...);
      };
      pass(Slab<E>(operands.view, plane, operands.seen ? top : first, operands.seen ? bottom : stop)...);
    }
  });
}

// y: sums of x's windows, divided, where the rows say so.
template <class T, class Rows>
void sum_rows(bool last, const Rows& rows, Operand<T> x, Operand<T> y) {
  const auto mean = kernels().pool.loops<T>().mean;
  const std::int64_t step = y.steps(last).column;
  for_rows(
      last, y.view, rows,
      [&](std::int64_t o, std::int64_t n, Image<T> xs, Image<T> ys) {
        mean(xs.at(rows.top(o)), rows.of(o).row(n, step, 0), ys.at(o));
      },
      x, y);
}

template <class T, class Index>
void max_rows(const PoolGeometry& g, bool last, bool relu, Operand<T> x, Operand<T> y, Operand<Index> index) {
  const auto forward = kernels().pool.loops<T>().template max<Index>().forward;
  const WindowRows rows(g, x.steps(last));
  const std::int64_t step = y.steps(last).column, code = index.steps(last).column;
  for_rows(
      last, y.view, rows,
      [&](std::int64_t o, std::int64_t n, Image<T> xs, Image<T> ys, Image<Index> codes) {
        forward(xs.at(rows.top(o)), rows.of(o).row(n, step, code), relu, ys.at(o), codes.at(o));
      },
      x, y, index);
}

template <class T, class Index>
void pick_rows(const PoolGeometry& g, bool last, Operand<T> x, Operand<Index> index, Operand<T> y) {
  const auto pick = kernels().pool.loops<T>().template max<Index>().pick;
  const WindowRows rows(g, x.steps(last));
  const std::int64_t step = y.steps(last).column, code = index.steps(last).column;
  for_rows(
      last, y.view, rows,
      [&](std::int64_t o, std::int64_t n, Image<T> xs, Image<Index> codes, Image<T> ys) {
        pick(xs.at(rows.top(o)), codes.at(o), rows.of(o).row(n, step, code), ys.at(o));
      },
      x, index, y);
}

template <class T, class Index>
void max_back(const PoolGeometry& g, bool last, Operand<T> dy, Operand<Index> index, Operand<T> dx) {
  const auto backward = kernels().pool.loops<T>().template max<Index>().backward;
  const ElementRows rows(g, dy.steps(last), index.steps(last));
  const std::int64_t step = dx.steps(last).column;
  for_rows(
      last, dx.view, rows,
      [&](std::int64_t h, std::int64_t n, Image<T> dys, Image<Index> codes, Image<T> dxs) {
        const std::int64_t top = rows.top(h);
        backward(dys.at(top), codes.at(top), rows.of(h).row(n, step, 0), dxs.at(h));
      },
      dy, index, dx);
}

template <class T>
void mean_back(const PoolGeometry& g, bool last, const View& dy, const View& dx) {
  const Scratch<T> space(dy.elements());
  const View quotients = laid_view(space.get(), dy, last);
  sum_rows<T>(last, QuotientRows(g, seen<T>(dy).steps(last)), seen<T>(dy), result<T>(quotients));
  const Steps steps = seen<T>(quotients).steps(last);
  sum_rows<T>(last, ElementRows(g, steps, steps), seen<T>(quotients), result<T>(dx));
}

}  // namespace

void max_pool(const PoolGeometry& g, const View& x, bool relu, const View& y, const View& index) {
  const bool last = channels_last(x);
  const Laid in(x, last);
  with_float_type(x.dtype, [&]<class T>(T) {
    with_index_type(index, [&]<class Index>(Index) {
      max_rows(g, last, relu, seen<T>(in.view()), result<T>(y), result<Index>(index));
    });
  });
}

void max_pool_backward(const PoolGeometry& g, const View& dy, const View& index, const View& dx) {
  const bool last = channels_last(dx);
  const Laid in(dy, last);
  with_float_type(dx.dtype, [&]<class T>(T) {
    with_index_type(index, [&]<class Index>(Index) {
      max_back(g, last, seen<T>(in.view()), seen<Index>(index), result<T>(dx));
    });
  });
}

void max_pool_pick(const PoolGeometry& g, const View& x, const View& index, const View& y) {
  const bool last = channels_last(y);
  const Laid in(x, last);
  with_float_type(x.dtype, [&]<class T>(T) {
    with_index_type(index, [&]<class Index>(Index) {
      pick_rows(g, last, seen<T>(in.view()), Operand<Index>{index, false, false}, result<T>(y));
    });
  });
}

void avg_pool(const PoolGeometry& g, const View& x, const View& y) {
  const bool last = channels_last(x);
  const Laid in(x, last);
  with_float_type(x.dtype, [&]<class T>(T) {
    const auto from = seen<T>(in.view());
    sum_rows<T>(last, WindowRows(g, from.steps(last)), from, result<T>(y));
  });
}

void avg_pool_backward(const PoolGeometry& g, const View& dy, const View& dx) {
  const bool last = channels_last(dx);
  const Laid in(dy, last);
  with_float_type(dx.dtype, [&]<class T>(T) { mean_back<T>(g, last, in.view(), dx); });
}

}  // namespace thalweg::cpu
