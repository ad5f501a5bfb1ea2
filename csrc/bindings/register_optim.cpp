#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <mutex>

#include "bindings/cuda_array.h"
#include "bindings/recording.h"
#include "bindings/register.h"
#include "ops/optim.h"

namespace thalweg::bindings {
namespace {

constexpr const char* kOp = "optimizer";

// The native optimizer with references to every array it uses. Gradients are usually the same objects
// in every step, so their views are kept: an array that is still the same object at the same address
// needs no second look.
class PyFusedOptimizer {
 public:
  int add_group(const std::string& rule, const py::sequence& params, const py::sequence& states,
                const py::object& steps_object, const py::object& averages, const py::object& lr_scales,
                const py::object& masters, const py::object& absmax, const py::object& copies) {
    const std::size_t n = params.size();
    const std::vector<std::string> names = ops::state_names(rule);
    if (states.size() != names.size())
      fail<ValueError>(kOp, ": rule '", rule, "' has ", names.size(), " states, got ", states.size());
    const Array steps = output(steps_object, {kOp, "steps"});
    check_steps(steps.view, n);
    std::vector<ops::OptimTensorViews> tensors(n);
    std::vector<py::object> owners{steps.owner};
    const auto keep = [&](py::handle object, const std::string& name) {
      Array array = output(object, {kOp, name.c_str()});
      owners.push_back(std::move(array.owner));
      return array.view;
    };
    auto* step = steps.view.as<StepState>();
    for (std::size_t i = 0; i < n; ++i) {
      const std::string index = "[" + std::to_string(i) + "]";
      tensors[i].param = keep(params[i], "params" + index);
      for (std::size_t k = 0; k < states.size(); ++k) {
        const auto column = py::reinterpret_borrow<py::sequence>(states[k]);
        if (column.size() != n)
          fail<ValueError>(kOp, ": states[", k, "] has ", column.size(), " arrays, expected ", n);
        tensors[i].states.push_back(keep(column[i], names[k] + index));
        if (!absmax.is_none())
          tensors[i].absmax.push_back(
              keep(absmax[py::int_(k)][py::int_(i)], "absmax of " + names[k] + index));
      }
      if (!masters.is_none() && !py::object(masters[py::int_(i)]).is_none())
        tensors[i].master = keep(masters[py::int_(i)], "masters" + index);
      if (!copies.is_none() && !py::object(copies[py::int_(i)]).is_none())
        tensors[i].copy = keep(copies[py::int_(i)], "copies" + index);
      if (!averages.is_none()) tensors[i].average = keep(averages[py::int_(i)], "averages" + index);
      if (!lr_scales.is_none()) tensors[i].lr_scale = py::cast<double>(lr_scales[py::int_(i)]);
      tensors[i].step = step + i;
    }
    if (n > 0) check_same_device(kOp, "steps", steps.view, "params", tensors[0].param);
    if (n > 0 && native_.tensor_count() == 0) stream_source_ = params[0];
    const int group = native_.add_group(rule, std::move(tensors));
    owners_.insert(owners_.end(), owners.begin(), owners.end());
    sizes_.push_back(n);
    sources_.resize(native_.tensor_count());
    changed_ = true;
    return group;
  }

  py::object step(const py::array& hyper, const py::sequence& grads, double grad_scale,
                  std::optional<double> max_norm, std::optional<double> clip_value,
                  std::optional<double> ema_decay, bool zero_grad, const std::string& nonfinite) {
    constexpr auto kFields = static_cast<py::ssize_t>(std::size(kHyperFields));
    if (!py::isinstance<py::array_t<double, py::array::c_style>>(hyper) || hyper.ndim() != 2 ||
        hyper.shape(1) != kFields)
      fail<TypeError>(kOp, ": hyper must be a C-contiguous float64 array of shape (groups, ", kFields, ")");
    const std::span rows(static_cast<const Hyper*>(hyper.data()), static_cast<std::size_t>(hyper.shape(0)));
    const std::unique_lock lock = sole_caller();
    const std::shared_ptr<const ops::Gradients> views = gradients(grads, zero_grad);
    if (is_recording()) {
      keep_alive(hyper);
      for (const auto& sources : sources_)
        for (const Source& source : sources) keep_alive(source.array.owner);
    }
    const Array device_norm = prepare_device(max_norm.has_value());
    const ops::OptimStepOptions options{grad_scale,
                                        max_norm,
                                        clip_value,
                                        ema_decay,
                                        zero_grad,
                                        read_nonfinite(nonfinite),
                                        device_norm.view.as<double>()};
    const auto norm = without_gil([&] { return native_.step(rows, views, options); });
    if (device_norm) return device_norm.owner;
    return norm ? py::object(py::float_(*norm)) : py::none();
  }

  std::optional<double> last_norm() const { return native_.last_norm(); }
  std::optional<std::size_t> nonfinite_tensor() const { return native_.nonfinite_tensor(); }

  py::object grad_norm(const py::sequence& grads, double grad_scale) {
    const std::unique_lock lock = sole_caller();
    const std::shared_ptr<const ops::Gradients> views = gradients(grads, false);
    const Array device_norm = prepare_device(true);
    const double norm =
        without_gil([&] { return native_.grad_norm(views, grad_scale, device_norm.view.as<double>()); });
    return device_norm ? device_norm.owner : py::object(py::float_(norm));
  }

 private:
  static_assert(sizeof(StepState) == sizeof(double) * std::size(kStepFields));
  static_assert(sizeof(Hyper) == sizeof(double) * std::size(kHyperFields));

  struct Source {
    py::object object;
    Array array;
    const void* descr = nullptr;  // NumPy's dtype, which can be set in place as strides can
  };

  // Gradients are remembered from step to step, so that a second thread must not even look at its own.
  std::unique_lock<std::mutex> sole_caller() {
    std::unique_lock lock(mutex_, std::try_to_lock);
    if (!lock)
      fail<DeviceError>(kOp, ": a step is running in another thread; use a lock, or an optimizer each");
    return lock;
  }

  static ops::Nonfinite read_nonfinite(const std::string& name) {
    if (name == "propagate") return ops::Nonfinite::propagate;
    if (name == "skip") return ops::Nonfinite::skip;
    if (name == "raise") return ops::Nonfinite::stop;
    fail<ValueError>(kOp, ": nonfinite must be 'propagate', 'skip' or 'raise', got '", name, "'");
  }

  static void check_steps(const View& steps, std::size_t n) {
    constexpr auto kFields = static_cast<std::int64_t>(std::size(kStepFields));
    if (steps.dtype != DType::f64 || steps.rank != 2 || steps.shape[0] != static_cast<std::int64_t>(n) ||
        steps.shape[1] != kFields || !steps.contiguous())
      fail<TypeError>(kOp, ": steps must be a writable C-contiguous float64 array of shape (", n, ", ",
                      kFields, ")");
  }

  // Arrays that were seen in an earlier step are not looked at again, but their library may have changed
  // its stream. On a GPU the norm stays there, as a 0-d array.
  Array prepare_device(bool wants_norm) const {
    if (native_.device() != Device::cuda) return {};
    use_stream_of(stream_source_);
    return wants_norm ? empty(Device::cuda, DType::f64, {}) : Array{};
  }

  // A gradient that is only read may have any layout: a strided one is copied. One that will be
  // zeroed must be contiguous, since zeroing the copy would be lost.
  static Array read_gradient(py::handle object, const char* name, bool zero_grad) {
    Array array = input(object, {kOp, name});
    if (array.view.contiguous() || zero_grad) return array;
    if (array.view.device == Device::cuda)
      return input(py::module_::import("cupy").attr("ascontiguousarray")(array.owner), {kOp, name});
    if (py::hasattr(object, "contiguous"))  // PyTorch's; NumPy knows no bfloat16 through DLPack
      return input(object.attr("contiguous")(), {kOp, name});
    const auto numpy = py::module_::import("numpy");
    const py::object source = py::isinstance<py::array>(object) ? py::reinterpret_borrow<py::object>(object)
                                                                : numpy.attr("from_dlpack")(object);
    return input(numpy.attr("ascontiguousarray")(source), {kOp, name});
  }

  static bool unchanged(const Source& source, py::handle object) {
    if (source.object.ptr() != object.ptr()) return false;
    if (!py::isinstance<py::array>(object)) {
      // DLPack costs microseconds a tensor; PyTorch's address of the data costs a twentieth. The view's
      // owner keeps that memory alive, so it cannot have become another array's.
      static PyObject* const data_ptr = PyUnicode_InternFromString("data_ptr");
      const auto address =
          py::reinterpret_steal<py::object>(PyObject_CallMethodNoArgs(object.ptr(), data_ptr));
      if (address) return PyLong_AsVoidPtr(address.ptr()) == source.array.view.data;
      PyErr_Clear();
      return false;
    }
    const auto* array = py::detail::array_proxy(object.ptr());
    return array->data == source.array.view.data && array->nd == source.array.view.rank &&
           source.array.owner.ptr() == object.ptr() && array->descr == source.descr &&
           (array->flags & py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_) != 0 &&
           std::equal(array->dimensions, array->dimensions + array->nd, source.array.view.shape) &&
           ((array->flags & py::detail::npy_api::NPY_ARRAY_WRITEABLE_) != 0) == source.array.view.writable;
  }

  void take(std::vector<Source>& cache, std::size_t k, std::size_t tensor, py::handle object,
            bool zero_grad) {
    if (k < cache.size() && unchanged(cache[k], object)) return;
    changed_ = true;
    if (k >= cache.size()) cache.resize(k + 1);
    const std::string name = "grads[" + std::to_string(tensor) + "]";
    cache[k].array = read_gradient(object, name.c_str(), zero_grad);
    cache[k].object = py::reinterpret_borrow<py::object>(object);
    if (py::isinstance<py::array>(object)) cache[k].descr = py::detail::array_proxy(object.ptr())->descr;
  }

  // Brings a tensor's cached sources in line with its entry: None, an array or a list of arrays.
  void take_entry(std::vector<Source>& cache, std::size_t tensor, py::handle entry, bool zero_grad) {
    std::size_t count = 0;
    if (PyList_Check(entry.ptr()) || PyTuple_Check(entry.ptr())) {
      for (py::handle source : entry) take(cache, count++, tensor, source, zero_grad);
    } else if (!entry.is_none()) {
      take(cache, count++, tensor, entry, zero_grad);
    }
    changed_ |= cache.size() != count;
    cache.resize(count);
  }

  std::shared_ptr<const ops::Gradients> gradients(const py::sequence& grads, bool zero_grad) {
    if (grads.size() != sizes_.size())
      fail<ValueError>(kOp, ": grads has ", grads.size(), " groups, expected ", sizes_.size());
    changed_ |= zero_grad && !checked_for_zeroing_;
    std::size_t tensor = 0;
    for (std::size_t g = 0; g < sizes_.size(); ++g) {
      const auto group = py::reinterpret_steal<py::object>(
          PySequence_Fast(py::object(grads[g]).ptr(), "optimizer: a group of gradients is a sequence"));
      if (!group) throw py::error_already_set();
      const auto count = static_cast<std::size_t>(PySequence_Fast_GET_SIZE(group.ptr()));
      if (count != sizes_[g])
        fail<ValueError>(kOp, ": grads of group ", g, " has ", count, " entries, expected ", sizes_[g]);
      PyObject** const entries = PySequence_Fast_ITEMS(group.ptr());
      for (std::size_t i = 0; i < count; ++i, ++tensor)
        take_entry(sources_[tensor], i, entries[i], zero_grad);
    }
    if (changed_) check(zero_grad);
    return checked_;
  }

  void check(bool zero_grad) {
    ops::Gradients views(sources_.size());
    for (std::size_t i = 0; i < views.size(); ++i)
      for (const Source& source : sources_[i]) views[i].push_back(source.array.view);
    try {
      checked_ = native_.checked(std::move(views), zero_grad);
    } catch (...) {
      for (auto& sources : sources_) sources.clear();  // how they were read depends on zero_grad
      throw;
    }
    checked_for_zeroing_ = zero_grad;
    changed_ = false;
  }

  ops::FusedOptimizer native_;
  std::mutex mutex_;
  std::vector<py::object> owners_;
  py::object stream_source_;                       // the first parameter
  std::vector<std::size_t> sizes_;                 // tensors a group
  std::vector<std::vector<Source>> sources_;       // last step's gradients, a list a tensor
  std::shared_ptr<const ops::Gradients> checked_;  // and as they were checked, unless `changed_` since
  bool changed_ = true, checked_for_zeroing_ = false;
};

py::dict optimizer_rules() {
  py::dict rules;
  for (int rule = 0; rule < kOptimRules; ++rule) {
    const char* const name = cpu::rule_name(rule);
    rules[name] = ops::state_names(name);
  }
  return rules;
}

template <std::size_t N>
py::tuple names(const char* const (&fields)[N]) {
  py::tuple result(N);
  for (std::size_t i = 0; i < N; ++i) result[i] = py::str(fields[i]);
  return result;
}

}  // namespace

void register_optim(py::module_& m) {
  m.def("optimizer_rules", &optimizer_rules);
  m.attr("HYPER_FIELDS") = names(kHyperFields);
  m.attr("STEP_FIELDS") = names(kStepFields);
  py::class_<PyFusedOptimizer>(m, "FusedOptimizer")
      .def(py::init<>())
      .def("add_group", &PyFusedOptimizer::add_group, py::arg("rule"), py::arg("params"), py::arg("states"),
           py::arg("steps"), py::arg("averages") = py::none(), py::arg("lr_scales") = py::none(),
           py::arg("masters") = py::none(), py::arg("absmax") = py::none(), py::arg("copies") = py::none())
      .def("step", &PyFusedOptimizer::step, py::arg("hyper"), py::arg("grads"), py::kw_only(),
           py::arg("grad_scale") = 1.0, py::arg("max_norm") = py::none(), py::arg("clip_value") = py::none(),
           py::arg("ema_decay") = py::none(), py::arg("zero_grad") = false,
           py::arg("nonfinite") = "propagate")
      .def_property_readonly("last_norm", &PyFusedOptimizer::last_norm)
      .def_property_readonly("nonfinite_tensor", &PyFusedOptimizer::nonfinite_tensor)
      .def("grad_norm", &PyFusedOptimizer::grad_norm, py::arg("grads"), py::kw_only(),
           py::arg("grad_scale") = 1.0);
}

}  // namespace thalweg::bindings
