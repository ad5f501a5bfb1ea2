#include "bindings/pixels.h"
#include "bindings/register.h"
#include "ops/elementwise.h"
#include "rules/elementwise.h"

namespace thalweg::bindings {
namespace {

Operand operand(py::handle object, Array& array, Argument argument) {
  Operand result;
  if (const auto number = scalar(object)) {
    result.number = *number;
    result.is_number = true;
  } else {
    array = input(object, argument);
    result.view = array.view;
  }
  return result;
}

// A new array shaped like `like`: channels-last if all `inputs` of that shape are, else C-contiguous.
Array result_or_out(py::handle out, const char* op, const View& like,
                    std::initializer_list<const View*> inputs) {
  Array result = optional_output(out, {op, "out"});
  if (result) return result;
  bool last = false;
  for (const View* v : inputs) {
    if (!same_shape(*v, like)) continue;
    last = v->rank == 4 && cpu::channels_last(*v);
    if (!last) break;
  }
  return last ? empty_channels_last(like, like.dtype, like.shape[2], like.shape[3]) : empty_like(like);
}

template <template <class> class Rule>
void register_unary(py::module_& m, int rule) {
  constexpr const char* name = Rule<float>::name;
  const auto call = [rule](py::handle x, double parameter, py::handle out) {
    const Array in = input(x, {name, "x"});
    check_float(name, "x", in.view);
    constexpr bool kCopy = std::is_same_v<Rule<float>, Copy<float>>;  // promises C order
    const Array result =
        kCopy ? result_or_out(out, name, in.view, {}) : result_or_out(out, name, in.view, {&in.view});
    without_gil([&] { ops::unary(rule, parameter, in.view, result.view); });
    return result.owner;
  };
  if constexpr (requires { Rule<float>::parameter; }) {
    constexpr Parameter p = Rule<float>::parameter;
    m.def(name, call, py::arg("x"), py::arg(p.name) = p.value, py::kw_only(), py::arg("out") = py::none());
  } else {
    m.def(
        name, [call](py::handle x, py::handle out) { return call(x, 0.0, out); }, py::arg("x"), py::kw_only(),
        py::arg("out") = py::none());
  }
}

template <template <class> class Rule>
void register_binary(py::module_& m, int rule) {
  constexpr const char* name = Rule<float>::name;
  m.def(
      name,
      [rule](py::handle a, py::handle b, py::handle out) {
        Array a_array, b_array;
        const Operand x = operand(a, a_array, {name, "a"}), y = operand(b, b_array, {name, "b"});
        const Array result = result_or_out(out, name, ops::binary_result(rule, x, y), {&x.view, &y.view});
        without_gil([&] { ops::binary(rule, x, y, result.view); });
        return result.owner;
      },
      py::arg("a"), py::arg("b"), py::kw_only(), py::arg("out") = py::none());
}

template <template <class> class Rule>
void register_gradient(py::module_& m, int rule) {
  constexpr const char* name = Rule<float>::name;
  constexpr const char* saved_name = Rule<float>::saved;
  const auto call = [rule](py::handle dy, py::handle saved, double parameter, py::handle out) {
    const Array dy_array = input(dy, {name, "dy"}), saved_array = input(saved, {name, saved_name});
    check_float(name, "dy", dy_array.view);
    const Array result = result_or_out(out, name, dy_array.view, {&saved_array.view});
    without_gil([&] { ops::gradient(rule, parameter, dy_array.view, saved_array.view, result.view); });
    return result.owner;
  };
  if constexpr (requires { Rule<float>::parameter; }) {
    constexpr Parameter p = Rule<float>::parameter;
    m.def(name, call, py::arg("dy"), py::arg(saved_name), py::arg(p.name) = p.value, py::kw_only(),
          py::arg("out") = py::none());
  } else {
    m.def(
        name, [call](py::handle dy, py::handle saved, py::handle out) { return call(dy, saved, 0.0, out); },
        py::arg("dy"), py::arg(saved_name), py::kw_only(), py::arg("out") = py::none());
  }
}

}  // namespace

void register_elementwise(py::module_& m) {
  UnaryRules::for_each([&]<template <class> class Rule>(int rule) { register_unary<Rule>(m, rule); });
  BinaryRules::for_each([&]<template <class> class Rule>(int rule) { register_binary<Rule>(m, rule); });
  GradientRules::for_each([&]<template <class> class Rule>(int rule) { register_gradient<Rule>(m, rule); });
}

}  // namespace thalweg::bindings
