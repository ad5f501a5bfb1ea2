// From Python's arrays to views, and back. Nothing is ever converted or copied here: an in-place
// kernel on a silent copy would lose its result.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <type_traits>
#include <vector>

#include "base/view.h"

namespace thalweg::bindings {

namespace py = pybind11;

// Names an argument in errors: {"matmul", "a"}.
struct Argument {
  const char* function;
  const char* name;
};

// A borrowed array. `owner` keeps the memory alive for as long as the view is used.
struct Array {
  View view;
  py::object owner;

  explicit operator bool() const { return owner.ptr() != nullptr; }
};

// Accepts the buffer protocol, DLPack and __cuda_array_interface__. ValueError for layouts that
// kernels cannot read (misaligned, strides between elements, more than kMaxRank dimensions, foreign
// byte order), TypeError for anything that is no array or has an element type without a DType.
Array input(py::handle object, Argument argument);

// The same, and refuses read-only memory and memory that overlaps itself.
Array output(py::handle object, Argument argument);

// input() or output() of an optional argument; an empty Array for None.
Array optional_input(py::handle object, Argument argument);
Array optional_output(py::handle object, Argument argument);

// A Python or NumPy scalar (no array, no 0-d array). Kernels give it the other operand's dtype.
std::optional<double> scalar(py::handle object);

// A new uninitialised C-contiguous array. MemoryError if there is no room.
Array empty(Device device, DType dtype, const std::int64_t* shape, int rank);
inline Array empty(Device device, DType dtype, std::initializer_list<std::int64_t> shape) {
  return empty(device, dtype, shape.begin(), static_cast<int>(shape.size()));
}
inline Array empty_like(const View& view) { return empty(view.device, view.dtype, view.shape, view.rank); }

// "axis" as NumPy reads it: negative counts from the end. ValueError outside the rank.
int normalize_axis(std::int64_t axis, int rank, Argument argument);
// None: all axes. Sorted, unique.
std::vector<int> normalize_axes(py::handle axes, int rank, Argument argument);

// Runs f without the interpreter lock. f must not touch Python objects.
template <class F>
decltype(auto) without_gil(F&& f) {
  py::gil_scoped_release release;
  return f();
}

}  // namespace thalweg::bindings
