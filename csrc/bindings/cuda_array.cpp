#include "bindings/cuda_array.h"

#include <algorithm>
#include <string>

#include "plan/device.h"

namespace thalweg::bindings {
namespace {

DType dtype_of_typestr(const std::string& typestr, Argument argument) {
  if (typestr == "<f4") return DType::f32;
  if (typestr == "<f8") return DType::f64;
  if (typestr == "<f2") return DType::f16;
  if (typestr == "<i4") return DType::i32;
  if (typestr == "<i8") return DType::i64;
  if (typestr == "|u1") return DType::u8;
  if (typestr == "|b1") return DType::boolean;
  fail<TypeError>(argument.function, ": ", argument.name, " has dtype ", typestr,
                  ", which no kernel takes; convert it, e.g. to float32");
}

void set_layout(View& view, const py::dict& interface, Argument argument) {
  const py::tuple shape = interface["shape"];
  if (shape.size() > kMaxRank)
    fail<ValueError>(argument.function, ": ", argument.name, " has ", shape.size(), " dimensions, at most ",
                     kMaxRank, " are supported");
  const bool strided = interface.contains("strides") && !interface["strides"].is_none();
  view.rank = static_cast<int>(shape.size());
  std::int64_t contiguous = 1;
  for (int i = view.rank - 1; i >= 0; --i) {
    view.shape[i] = py::cast<std::int64_t>(shape[static_cast<std::size_t>(i)]);
    const std::int64_t item = size_of(view.dtype);
    const std::int64_t bytes =
        strided ? py::cast<std::int64_t>(py::tuple(interface["strides"])[static_cast<std::size_t>(i)])
                : contiguous * item;
    if (view.shape[i] > 1 && bytes % item != 0)
      fail<ValueError>(argument.function, ": ", argument.name, " has a stride of ", bytes,
                       " bytes, no multiple of its element size ", item, "; pass a copy");
    view.strides[i] = view.shape[i] > 1 ? bytes / item : 0;
    contiguous *= view.shape[i];
  }
}

// PyTorch hands out no interface for a tensor that requires a gradient; its data is the same memory.
py::dict interface_of(py::handle object) {
  const bool tracked = py::hasattr(object, "requires_grad") && py::cast<bool>(object.attr("requires_grad"));
  return (tracked ? py::object(object.attr("detach")()) : py::reinterpret_borrow<py::object>(object))
      .attr("__cuda_array_interface__");
}

// The stream that the array's library uses now. PyTorch's interface does not tell; the others' does.
cuda::Stream stream_of(py::handle object, const py::dict& interface) {
  const std::string library = py::str(py::type::of(object).attr("__module__"));
  if (library == "torch" || library.starts_with("torch."))
    return reinterpret_cast<cuda::Stream>(py::cast<std::uintptr_t>(
        py::module_::import("torch").attr("cuda").attr("current_stream")().attr("cuda_stream")));
  if (!interface.contains("stream") || interface["stream"].is_none()) return nullptr;
  return reinterpret_cast<cuda::Stream>(py::cast<std::uintptr_t>(interface["stream"]));
}

}  // namespace

bool is_cuda_array(py::handle object) {
  if (py::hasattr(object, "__cuda_array_interface__")) return true;
  return py::hasattr(object, "is_cuda") && py::cast<bool>(object.attr("is_cuda"));  // PyTorch, see above
}

Array from_cuda(py::handle object, Argument argument) {
  if (!has_table())  // loads it, or raises RuntimeError with what is missing
    py::module_::import("thalweg.cuda")
        .attr("load")(std::string(argument.function) + ": " + argument.name + ", a CUDA array,");
  const py::dict interface = interface_of(object);
  const py::tuple data = interface["data"];
  Array result;
  View& view = result.view;
  view.device = Device::cuda;
  view.data = reinterpret_cast<void*>(py::cast<std::uintptr_t>(data[0]));
  view.writable = !py::cast<bool>(data[1]);
  view.dtype = dtype_of_typestr(py::cast<std::string>(interface["typestr"]), argument);
  set_layout(view, interface, argument);
  current_stream() = stream_of(object, interface);
  result.owner = py::reinterpret_borrow<py::object>(object);
  return result;
}

void use_stream_of(py::handle object) { current_stream() = stream_of(object, interface_of(object)); }

Array empty_on_cuda(DType dtype, const std::int64_t* shape, int rank) {
  const cuda::Stream stream = current_stream();  // CuPy's allocation must not change it
  const char* name = dtype == DType::f64   ? "float64"
                     : dtype == DType::f32 ? "float32"
                     : dtype == DType::i32 ? "int32"
                     : dtype == DType::i64 ? "int64"
                                           : "bool";
  const py::module_ cupy = py::module_::import("cupy");
  py::tuple extents(static_cast<std::size_t>(rank));
  for (int i = 0; i < rank; ++i) extents[static_cast<std::size_t>(i)] = shape[i];
  const auto handle = reinterpret_cast<std::uintptr_t>(stream);
  // CuPy's pool is kept per stream: memory of another stream could still be in use there.
  const py::object context = cupy.attr("cuda").attr("ExternalStream")(handle);
  context.attr("__enter__")();
  const py::object array = cupy.attr("empty")(extents, name);
  context.attr("__exit__")(py::none(), py::none(), py::none());
  Array result = from_cuda(array, {"thalweg", "result"});
  current_stream() = stream;
  return result;
}

}  // namespace thalweg::bindings
