#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <mutex>

#include "bindings/recording.h"
#include "bindings/register.h"
#include "ops/cast.h"
#include "ops/counter.h"
#include "ops/labels.h"
#include "plan/plan.h"
#include "plan/profile.h"

namespace thalweg::bindings {
namespace {

class PyPlan;
thread_local PyPlan* recording = nullptr;

// A plan with references to all arrays that it uses.
class PyPlan {
 public:
  explicit PyPlan(py::object array_type) : array_type_(std::move(array_type)) {}
  ~PyPlan() { stop(); }
  PyPlan(const PyPlan&) = delete;
  PyPlan& operator=(const PyPlan&) = delete;

  void start() {
    if (recording) fail<DeviceError>("capture: a step is being recorded already; captures do not nest");
    plan_.start();
    recording = this;
  }
  void stop() {
    if (recording != this) return;
    plan_.stop();
    recording = nullptr;
  }

  int declare(Plan::Memory memory, py::handle object) {
    const Array array = input(object, {"capture", "array"});
    if (memory == Plan::Memory::constant) check_contiguous("capture", "constant", array.view);
    return plan_.declare(memory, array.view);
  }
  void keep(py::handle object) { kept_.push_back(py::reinterpret_borrow<py::object>(object)); }

  // Arrays that cannot be written to, by whatever name, do not change. Made ones are kept already.
  void note(const Array& array) {
    py::object root = array.owner;
    bool writable = false;
    while (py::isinstance<py::array>(root)) {
      const auto holder = py::reinterpret_borrow<py::array>(root);
      writable = writable || holder.writeable();
      if (!holder.base()) break;
      root = holder.base();
    }
    if (std::any_of(made_.begin(), made_.end(), [&](const py::object& made) { return made.is(root); }))
      return;
    keep(array.owner);
    if (!writable && py::isinstance<py::array>(root)) plan_.declare(Plan::Memory::state, array.view);
  }

  py::object make(const py::dtype& type, const std::vector<py::ssize_t>& shape) const {
    return array_type_(py::cast(shape), type);
  }
  void made(const Array& array) {
    if (plan_.declare(Plan::Memory::made, array.view) >= 0) made_.push_back(array.owner);
  }

  // `bound`: which inputs are read where the caller has them. What only the plan refers to is moved.
  void settle(const std::vector<bool>& bound) {
    std::vector<bool> owned;
    for (const py::object& made : made_) owned.push_back(Py_REFCNT(made.ptr()) > 1);
    plan_.settle(owned, bound);
    for (std::size_t i = 0; i < bound.size(); ++i)
      if (bound[i]) bound_.push_back(static_cast<int>(i));
    plan_.poison();
  }
  // Frees the memory that was moved, unless somebody has looked at it.
  bool leave() {
    if (!plan_.is_poisoned()) return false;
    plan_.leave();
    std::erase_if(made_, [](const py::object& made) { return Py_REFCNT(made.ptr()) == 1; });
    return true;
  }

  // Launches begin … end. `arguments`: an array for each bound input, of its layout.
  void run(const py::list& arguments, std::size_t begin, std::size_t end) {
    const std::unique_lock<std::mutex> lock(running_, std::try_to_lock);
    if (!lock.owns_lock())
      fail<DeviceError>("capture: the step is being replayed by another thread; capture one for each");
    std::vector<py::object> aligned;
    for (std::size_t i = 0; i < arguments.size(); ++i) {
      auto array = py::reinterpret_borrow<py::array>(arguments[i]);
      if ((array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) == 0) {
        array = array.attr("copy")("K");
        aligned.push_back(array);
      }
      plan_.bind(bound_[i], const_cast<void*>(array.data()));
    }
    without_gil([&] { plan_.run(begin, std::min(end, plan_.size())); });
  }
  py::bytes save() const {
    const auto contents = plan_.save();
    return {reinterpret_cast<const char*>(contents.data()), contents.size()};
  }
  void restore(const std::string& contents) const {
    const auto* first = reinterpret_cast<const std::byte*>(contents.data());
    plan_.restore({first, first + contents.size()});
  }

  const Plan& plan() const { return plan_; }

 private:
  Plan plan_;
  py::object array_type_;
  std::vector<py::object> kept_, made_;
  std::vector<int> bound_;  // inputs
  std::mutex running_;
};

class PyProfile {
 public:
  void start() {
    if (launch_observer) fail<DeviceError>("profile: this thread is profiled or recorded already");
    launch_observer = &profile_;
  }
  void stop() { launch_observer = nullptr; }
  py::list events() const {
    py::list result;
    for (const auto& e : profile_.events())
      result.append(py::make_tuple(e.name, e.flops, e.bytes, e.start, e.seconds));
    return result;
  }

 private:
  Profile profile_;
};

void register_plan_class(py::module_& m) {
  const auto declare = [](Plan::Memory memory) {
    return [memory](PyPlan& plan, py::handle array) { return plan.declare(memory, array); };
  };
  py::class_<PyPlan>(m, "Plan")
      .def(py::init<py::object>(), py::arg("array_type"))
      .def("start", &PyPlan::start)
      .def("stop", &PyPlan::stop)
      .def("input", declare(Plan::Memory::input), py::arg("array"))
      .def("constant", declare(Plan::Memory::constant), py::arg("array"))
      .def("state", declare(Plan::Memory::state), py::arg("array"))
      .def("problem", [](const PyPlan& plan) { return plan.plan().problem(); })
      .def(
          "difference",
          [](const PyPlan& plan, const PyPlan& other) { return plan.plan().difference(other.plan()); },
          py::arg("other"))
      .def("settle", &PyPlan::settle, py::arg("bound"))
      .def("leave", &PyPlan::leave)
      .def("run", &PyPlan::run, py::arg("arguments"), py::arg("begin") = 0,
           py::arg("end") = std::numeric_limits<std::size_t>::max())
      .def_property_readonly("made_bytes", [](const PyPlan& plan) { return plan.plan().made_bytes(); })
      .def_property_readonly("arena_bytes", [](const PyPlan& plan) { return plan.plan().arena_bytes(); })
      .def("save", &PyPlan::save)
      .def("restore", &PyPlan::restore, py::arg("contents"))
      .def("__len__", [](const PyPlan& plan) { return plan.plan().size(); });
}

py::object snapshot(py::handle object) {
  const Array counters = input(object, {"snapshot", "counters"}), copy = empty_like(counters.view);
  without_gil([&] { ops::snapshot(counters.view, copy.view); });
  return copy.owner;
}

py::object pick(py::handle x_object, py::handle target_object) {
  const Array x = input(x_object, {"pick", "x"}), target = input(target_object, {"pick", "target"});
  check_float("pick", "x", x.view);
  check_rank("pick", "x", x.view, 2);
  const Array y = empty(x.view.device, x.view.dtype, {x.view.shape[0]});
  without_gil([&] { ops::pick(x.view, target.view, y.view); });
  return y.owner;
}

py::object unpick(py::handle dy_object, py::handle target_object, std::int64_t classes) {
  const Array dy = input(dy_object, {"unpick", "dy"}), target = input(target_object, {"unpick", "target"});
  check_float("unpick", "dy", dy.view);
  check_rank("unpick", "dy", dy.view, 1);
  const Array dx = empty(dy.view.device, dy.view.dtype, {dy.view.shape[0], classes});
  without_gil([&] { ops::unpick(dy.view, target.view, dx.view); });
  return dx.owner;
}

py::object cast(py::handle object, const std::string& dtype) {
  const Array x = input(object, {"cast", "x"});
  if (dtype != "float32" && dtype != "float64" && dtype != "bool")
    fail<ValueError>("cast: dtype must be 'float32', 'float64' or 'bool', got '", dtype, "'");
  const DType type = dtype == "float32" ? DType::f32 : dtype == "float64" ? DType::f64 : DType::boolean;
  const Array y = empty(Device::cpu, type, x.view.shape, x.view.rank);
  without_gil([&] { ops::cast(x.view, y.view); });
  return y.owner;
}

void register_memory(py::module_& m) {
  m.def("advance", [](py::handle counter) {
    const Array array = output(counter, {"advance", "counter"});
    without_gil([&] { ops::advance(array.view); });
  });
  m.def("cast", &cast, py::arg("x"), py::arg("dtype"));
  m.def("snapshot", &snapshot, py::arg("counters"));
  m.def("fill", [](py::handle out, double value) {
    const Array array = output(out, {"fill", "out"});
    without_gil([&] { ops::fill(array.view, value); });
  });
  m.def("check_labels", [](const std::string& op, py::handle target, std::int64_t classes) {
    const Array labels = input(target, {op.c_str(), "target"});
    without_gil([&] { ops::check_labels(op, labels.view, classes); });
  });
  m.def("check_probabilities", [](const std::string& op, py::handle target) {
    const Array array = input(target, {op.c_str(), "target"});
    without_gil([&] { ops::check_probabilities(op, array.view); });
  });
  m.def("pick", &pick, py::arg("x"), py::arg("target"));
  m.def("unpick", &unpick, py::arg("dy"), py::arg("target"), py::arg("classes"));
}

}  // namespace

bool is_recording() { return recording != nullptr; }
void note_array(const Array& array) { recording->note(array); }
void keep_alive(py::handle object) { recording->keep(object); }
py::object make_array(const py::dtype& type, const std::vector<py::ssize_t>& shape) {
  return recording->make(type, shape);
}
void note_result(const Array& array) { recording->made(array); }

void register_plan(py::module_& m) {
  register_plan_class(m);
  register_memory(m);
  m.def("empty", [](const std::vector<std::int64_t>& shape, const std::string& dtype) {
    const DType type = dtype == "float64" ? DType::f64 : DType::f32;
    return empty(Device::cpu, type, shape.data(), static_cast<int>(shape.size())).owner;
  });
  py::class_<PyProfile>(m, "Profile")
      .def(py::init<>())
      .def("start", &PyProfile::start)
      .def("stop", &PyProfile::stop)
      .def("events", &PyProfile::events);
}

}  // namespace thalweg::bindings
