#include "bindings/array.h"

#include <pybind11/numpy.h>

#include <algorithm>
#include <bit>

#include "bindings/cuda_array.h"
#include "bindings/dlpack.h"
#include "bindings/recording.h"
#include "bindings/result_memory.h"

namespace thalweg::bindings {
namespace {

static_assert(std::endian::native == std::endian::little);

void check_alignment(const View& view, Argument argument) {
  const auto address = reinterpret_cast<std::uintptr_t>(view.data);
  if (view.elements() != 0 && address % static_cast<std::uintptr_t>(size_of(view.dtype)) != 0)
    fail<ValueError>(argument.function, ": ", argument.name,
                     " is not aligned to its element size; pass a copy");
}

void set_shape(View& view, int rank, Argument argument) {
  if (rank > kMaxRank)
    fail<ValueError>(argument.function, ": ", argument.name, " has ", rank, " dimensions, at most ", kMaxRank,
                     " are supported");
  view.rank = rank;
}

// Byte strides to element strides. Extents of 0 and 1 may carry any stride: it is never used.
void set_strides(View& view, const Py_ssize_t* byte_strides, Argument argument) {
  const std::int64_t item = size_of(view.dtype);
  for (int i = 0; i < view.rank; ++i) {
    if (view.shape[i] <= 1) {
      view.strides[i] = 0;
    } else if (byte_strides[i] % item == 0) {
      view.strides[i] = byte_strides[i] / item;
    } else {
      fail<ValueError>(argument.function, ": ", argument.name, " has a stride of ", byte_strides[i],
                       " bytes, no multiple of its element size ", item, "; pass a copy");
    }
  }
}

void set_contiguous_strides(View& view) {
  std::int64_t stride = 1;
  for (int i = view.rank - 1; i >= 0; --i) {
    view.strides[i] = stride;
    stride *= view.shape[i];
  }
}

[[noreturn]] void refuse_dtype(Argument argument, const std::string& dtype) {
  fail<TypeError>(argument.function, ": ", argument.name, " has dtype ", dtype,
                  ", which no kernel takes; convert it, e.g. to float32");
}

DType dtype_of_numpy(const py::dtype& dtype, Argument argument) {
  const char order = dtype.byteorder();
  if (order == '>')
    fail<TypeError>(argument.function, ": ", argument.name, " is big-endian; convert it with ", argument.name,
                    ".astype(", argument.name, ".dtype.newbyteorder('='))");
  switch (dtype.num()) {
    case py::detail::npy_api::NPY_FLOAT_:
      return DType::f32;
    case py::detail::npy_api::NPY_DOUBLE_:
      return DType::f64;
    case py::detail::npy_api::NPY_INT_:
      return DType::i32;
    case py::detail::npy_api::NPY_LONG_:
    case py::detail::npy_api::NPY_LONGLONG_:
      return DType::i64;
    case py::detail::npy_api::NPY_UBYTE_:
      return DType::u8;
    case py::detail::npy_api::NPY_BOOL_:
      return DType::boolean;
    default:
      break;
  }
  const std::string name = py::str(dtype);
  if (name == "float16") return DType::f16;
  if (name == "bfloat16") return DType::bf16;
  refuse_dtype(argument, name);
}

Array from_numpy(py::handle object, Argument argument) {
  const auto array = py::reinterpret_borrow<py::array>(object);
  Array result;
  View& view = result.view;
  view.data = const_cast<void*>(array.data());
  view.dtype = dtype_of_numpy(array.dtype(), argument);
  view.writable = array.writeable();
  set_shape(view, static_cast<int>(array.ndim()), argument);
  std::copy_n(array.shape(), view.rank, view.shape);
  set_strides(view, array.strides(), argument);
  result.owner = py::reinterpret_borrow<py::object>(object);
  return result;
}

DType dtype_of_dlpack(const dlpack::Tensor& tensor, Argument argument) {
  const auto [code, bits, lanes] = tensor.dtype;
  if (lanes == 1) {
    if (code == dlpack::kFloat && bits == 32) return DType::f32;
    if (code == dlpack::kFloat && bits == 64) return DType::f64;
    if (code == dlpack::kFloat && bits == 16) return DType::f16;
    if (code == dlpack::kBfloat && bits == 16) return DType::bf16;
    if (code == dlpack::kInt && bits == 32) return DType::i32;
    if (code == dlpack::kInt && bits == 64) return DType::i64;
    if (code == dlpack::kUInt && bits == 8) return DType::u8;
    if (code == dlpack::kBool && bits == 8) return DType::boolean;
  }
  refuse_dtype(argument, "DLPack code " + std::to_string(code) + ", " + std::to_string(bits) + " bits");
}

void read_tensor(View& view, const dlpack::Tensor& tensor, Argument argument) {
  if (tensor.device.type != dlpack::kCpu && tensor.device.type != dlpack::kCudaHost)
    fail<DeviceError>(argument.function, ": ", argument.name,
                      " lives on a device that this build has no kernels for (DLPack device type ",
                      tensor.device.type, ")");
  view.data = static_cast<std::byte*>(tensor.data) + tensor.byte_offset;
  view.dtype = dtype_of_dlpack(tensor, argument);
  set_shape(view, tensor.ndim, argument);
  std::copy_n(tensor.shape, view.rank, view.shape);
  if (tensor.strides) {
    for (int i = 0; i < view.rank; ++i) view.strides[i] = view.shape[i] > 1 ? tensor.strides[i] : 0;
  } else {
    set_contiguous_strides(view);
  }
  if (!tensor.data && view.elements() > 0)
    fail<ValueError>(argument.function, ": ", argument.name,
                     " has elements but no memory (its storage was freed)");
}

// Takes the tensor out of its capsule: from here on the deleter is ours to call, once.
template <class Managed>
py::object adopt(Managed* managed, PyObject* capsule, const char* used_name) {
  PyCapsule_SetName(capsule, used_name);
  return py::capsule(managed, [](void* pointer) {
    auto* tensor = static_cast<Managed*>(pointer);
    if (tensor->deleter) tensor->deleter(tensor);
  });
}

py::object request_capsule(py::handle object) {
  const py::object method = object.attr("__dlpack__");
  try {
    return method(py::arg("max_version") = py::make_tuple(1, 0));
  } catch (py::error_already_set& error) {
    if (!error.matches(PyExc_TypeError)) throw;  // a producer from before version 1
    return method();
  }
}

Array from_dlpack(py::handle object, Argument argument) {
  const py::object capsule = request_capsule(object);
  Array result;
  if (PyCapsule_IsValid(capsule.ptr(), "dltensor_versioned")) {
    auto* managed = static_cast<dlpack::ManagedTensorVersioned*>(
        PyCapsule_GetPointer(capsule.ptr(), "dltensor_versioned"));
    if (managed->version.major != 1)
      fail<TypeError>(argument.function, ": ", argument.name, " exports DLPack ", managed->version.major,
                      ", expected version 1");
    result.owner = adopt(managed, capsule.ptr(), "used_dltensor_versioned");
    result.view.writable = (managed->flags & dlpack::kReadOnly) == 0;
    read_tensor(result.view, managed->tensor, argument);
  } else if (PyCapsule_IsValid(capsule.ptr(), "dltensor")) {
    auto* managed = static_cast<dlpack::ManagedTensor*>(PyCapsule_GetPointer(capsule.ptr(), "dltensor"));
    result.owner = adopt(managed, capsule.ptr(), "used_dltensor");
    result.view.writable = true;
    read_tensor(result.view, managed->tensor, argument);
  } else {
    fail<TypeError>(argument.function, ": ", argument.name,
                    " returned no unused DLPack capsule from __dlpack__()");
  }
  return result;
}

}  // namespace

Array input(py::handle object, Argument argument) {
  Array result;
  if (py::isinstance<py::array>(object)) {
    result = from_numpy(object, argument);
  } else if (is_cuda_array(object)) {
    result = from_cuda(object, argument);
  } else if (py::hasattr(object, "__dlpack__")) {
    result = from_dlpack(object, argument);
  } else if (PyObject_CheckBuffer(object.ptr()) && !PyBytes_Check(object.ptr())) {
    result = from_numpy(py::module_::import("numpy").attr("asarray")(object), argument);
  } else {
    fail<TypeError>(argument.function, ": ", argument.name, " must be an array, got ",
                    std::string(py::str(py::type::of(object).attr("__name__"))),
                    "; convert it with numpy.asarray");
  }
  check_alignment(result.view, argument);
  if (is_recording()) note_array(result);
  return result;
}

Array output(py::handle object, Argument argument) {
  Array result = input(object, argument);
  check_output(argument.function, argument.name, result.view);
  return result;
}

Array optional_input(py::handle object, Argument argument) {
  return object.is_none() ? Array{} : input(object, argument);
}

Array optional_output(py::handle object, Argument argument) {
  return object.is_none() ? Array{} : output(object, argument);
}

std::optional<double> scalar(py::handle object) {
  if (py::isinstance<py::array>(object)) return std::nullopt;
  static const py::handle number = py::object(py::make_tuple(py::module_::import("numpy").attr("floating"),
                                                             py::module_::import("numpy").attr("integer")))
                                       .release();
  if (!PyFloat_Check(object.ptr()) && !PyLong_Check(object.ptr()) && !py::isinstance(object, number))
    return std::nullopt;
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1.0 && PyErr_Occurred()) throw py::error_already_set();
  return value;
}

// py::array(type, extents) without its strides, which NumPy works out faster.
py::object new_array(py::dtype type, const std::vector<py::ssize_t>& extents) {
  const auto& api = py::detail::npy_api::get();
  auto bytes = static_cast<std::size_t>(type.itemsize());
  for (const py::ssize_t extent : extents) bytes *= static_cast<std::size_t>(extent);
  const ResultMemory memory(bytes);
  PyObject* array =
      api.PyArray_NewFromDescr_(api.PyArray_Type_, type.release().ptr(), static_cast<int>(extents.size()),
                                extents.data(), nullptr, nullptr, 0, nullptr);
  if (!array) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(array);
}

// NumPy has no bfloat16 of its own.
static py::dtype bfloat16_type() {
  try {
    return py::dtype::from_args(py::module_::import("ml_dtypes").attr("bfloat16"));
  } catch (const py::error_already_set&) {
    fail<TypeError>(
        "thalweg: a bfloat16 result is an array of ml_dtypes; pip install ml_dtypes, or pass out=");
  }
}

Array empty(Device device, DType dtype, const std::int64_t* shape, int rank) {
  if (device == Device::cuda) return empty_on_cuda(dtype, shape, rank);
  const py::dtype type = dtype == DType::f64    ? py::dtype::of<double>()
                         : dtype == DType::f32  ? py::dtype::of<float>()
                         : dtype == DType::bf16 ? bfloat16_type()
                         : dtype == DType::i32  ? py::dtype::of<std::int32_t>()
                         : dtype == DType::i64  ? py::dtype::of<std::int64_t>()
                         : dtype == DType::u8   ? py::dtype::of<std::uint8_t>()
                                                : py::dtype::of<bool>();
  const std::vector<py::ssize_t> extents(shape, shape + rank);
  if (!is_recording()) return from_numpy(new_array(type, extents), {"thalweg", "result"});
  const Array result = from_numpy(make_array(type, extents), {"thalweg", "result"});
  note_result(result);
  return result;
}

int normalize_axis(std::int64_t axis, int rank, Argument argument) {
  if (axis < -rank || axis >= rank)
    fail<ValueError>(argument.function, ": ", argument.name, " is ", axis, ", expected between ", -rank,
                     " and ", rank - 1, " for an array of ", rank, " dimensions");
  return static_cast<int>(axis < 0 ? axis + rank : axis);
}

std::vector<int> normalize_axes(py::handle axes, int rank, Argument argument) {
  std::vector<int> result;
  if (axes.is_none()) {
    for (int i = 0; i < rank; ++i) result.push_back(i);
  } else if (PyIndex_Check(axes.ptr())) {
    result.push_back(normalize_axis(py::cast<std::int64_t>(axes), rank, argument));
  } else if (py::isinstance<py::sequence>(axes)) {
    for (py::handle axis : axes)
      result.push_back(normalize_axis(py::cast<std::int64_t>(axis), rank, argument));
  } else {
    fail<TypeError>(argument.function, ": ", argument.name, " must be None, an int or a tuple of ints");
  }
  std::sort(result.begin(), result.end());
  if (std::adjacent_find(result.begin(), result.end()) != result.end())
    fail<ValueError>(argument.function, ": ", argument.name, " names an axis twice");
  return result;
}

}  // namespace thalweg::bindings
