// (N, C, H, W) arrays in either layout, and options that are one integer or a pair.
#pragma once

#include "bindings/array.h"
#include "cpu/pool.h"

namespace thalweg::bindings {

// A new (N, C, H, W) array of x's samples and channels whose channels are neighbours in memory.
inline Array empty_channels_last(const View& x, DType dtype, std::int64_t h, std::int64_t w) {
  Array result = empty(x.device, dtype, {x.shape[0], h, w, x.shape[1]});
  result.owner = result.owner.attr("transpose")(0, 3, 1, 2);
  const View rows = result.view;
  for (const auto& [to, from] : {std::pair{1, 3}, {2, 1}, {3, 2}})
    result.view.shape[to] = rows.shape[from], result.view.strides[to] = rows.strides[from];
  return result;
}

// The same, laid out in memory like `like`.
inline Array empty_pixels(const View& x, DType dtype, std::int64_t h, std::int64_t w, const View& like) {
  if (cpu::channels_last(like)) return empty_channels_last(x, dtype, h, w);
  return empty(x.device, dtype, {x.shape[0], x.shape[1], h, w});
}

// 3 or (3, 2): rows, then columns.
inline void read_pair(py::handle object, Argument argument, std::int64_t (&pair)[2]) {
  if (PyIndex_Check(object.ptr())) {
    pair[0] = pair[1] = py::cast<std::int64_t>(object);
    return;
  }
  if (!py::isinstance<py::sequence>(object) || py::len(object) != 2 ||
      !PyIndex_Check(object[py::int_(0)].ptr()) || !PyIndex_Check(object[py::int_(1)].ptr()))
    fail<TypeError>(argument.function, ": ", argument.name, " must be an int or a pair of ints, got ",
                    std::string(py::repr(object)));
  for (int i = 0; i < 2; ++i) pair[i] = py::cast<std::int64_t>(object[py::int_(i)]);
}

}  // namespace thalweg::bindings
