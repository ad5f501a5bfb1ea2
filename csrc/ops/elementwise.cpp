#include "ops/elementwise.h"

#include <algorithm>

#include "plan/device.h"
#include "plan/launch.h"
#include "rules/elementwise.h"

namespace thalweg::ops {
namespace {

// What checks need to know of a rule, by its index in a list.
struct RuleInfo {
  const char* name = nullptr;
  const char* saved = nullptr;
  const Parameter* parameter = nullptr;
};

template <class List>
struct RuleTable {
  RuleInfo rules[List::kSize];
  constexpr RuleTable() {
    List::for_each([&]<template <class> class Rule>(int i) {
      rules[i].name = Rule<float>::name;
      if constexpr (requires { Rule<float>::saved; }) rules[i].saved = Rule<float>::saved;
      if constexpr (requires { Rule<float>::parameter; }) rules[i].parameter = &Rule<float>::parameter;
    });
  }
};
template <class List>
constexpr RuleTable<List> kTable;

const RuleInfo& unary_rule(int rule) { return kTable<UnaryRules>.rules[rule]; }
const RuleInfo& binary_rule(int rule) { return kTable<BinaryRules>.rules[rule]; }
const RuleInfo& gradient_rule(int rule) { return kTable<GradientRules>.rules[rule]; }

struct UnaryLaunch {
  int rule;
  double parameter;
  View x, y;
  const char* name() const { return unary_rule(rule).name; }
  double flops() const { return static_cast<double>(y.elements()); }
  double bytes() const { return x.bytes() + y.bytes(); }
  void run() const { on_device(y.device, cpu::unary, &cuda::Table::unary, rule, parameter, x, y); }
  void visit(Fields& f) const {
    f.read(x);
    f.write(y);
    if (unary_rule(rule).parameter) f.number(unary_rule(rule).parameter->name, parameter);
  }
};

struct BinaryLaunch {
  int rule;
  Operand a, b;
  View y;
  const char* name() const { return binary_rule(rule).name; }
  double flops() const { return static_cast<double>(y.elements()); }
  double bytes() const {
    return (a.is_number ? 0 : a.view.bytes()) + (b.is_number ? 0 : b.view.bytes()) + y.bytes();
  }
  void run() const { on_device(y.device, cpu::binary, &cuda::Table::binary, rule, a, b, y); }
  void visit(Fields& f) const {
    for (const Operand* operand : {&a, &b}) {
      if (operand->is_number)
        f.number(operand == &a ? "a" : "b", operand->number);
      else
        f.read(operand->view);
    }
    f.write(y);
  }
};

struct GradientLaunch {
  int rule;
  double parameter;
  View dy, saved, dx;
  const char* name() const { return gradient_rule(rule).name; }
  double flops() const { return static_cast<double>(dx.elements()); }
  double bytes() const { return dy.bytes() + saved.bytes() + dx.bytes(); }
  void run() const {
    on_device(dx.device, cpu::gradient, &cuda::Table::gradient, rule, parameter, dy, saved, dx);
  }
  void visit(Fields& f) const {
    f.read(dy);
    f.read(saved);
    f.write(dx);
    if (gradient_rule(rule).parameter) f.number(gradient_rule(rule).parameter->name, parameter);
  }
};

void check_apart(const char* op, const char* name, const View& v, const View& out) {
  if (!identical(v, out) && overlaps(v, out))
    fail<ValueError>(op, ": out overlaps ", name, " without being the same array; pass a copy of ", name);
}

void check_parameter(const RuleInfo& rule, double value) {
  if (!rule.parameter) return;
  const Parameter& p = *rule.parameter;
  if (!(value >= p.low && value <= p.high))
    fail<ValueError>(rule.name, ": ", p.name, " must be finite and at least ", p.low, ", got ", value);
}

}  // namespace

void unary(int rule, double parameter, const View& x, const View& out) {
  const RuleInfo& info = unary_rule(rule);
  check_float(info.name, "x", x);
  check_same_dtype(info.name, "out", out, "x", x);
  check_same_shape(info.name, "out", out, "x", x);
  check_output(info.name, "out", out);
  check_apart(info.name, "x", x, out);
  check_parameter(info, parameter);
  launch(UnaryLaunch{rule, parameter, x, out});
}

View binary_result(int rule, const Operand& a, const Operand& b) {
  const char* op = binary_rule(rule).name;
  if (a.is_number && b.is_number)
    fail<TypeError>(op, ": a and b are both numbers, at least one must be an array");
  if (!a.is_number) check_float(op, "a", a.view);
  if (!b.is_number) check_float(op, "b", b.view);
  if (a.is_number || b.is_number) return a.is_number ? b.view : a.view;
  check_same_dtype(op, "b", b.view, "a", a.view);
  View result;
  result.dtype = a.view.dtype;
  result.device = a.view.device;
  result.rank = std::max(a.view.rank, b.view.rank);
  for (int i = 0; i < result.rank; ++i) {
    const int ia = i - (result.rank - a.view.rank), ib = i - (result.rank - b.view.rank);
    const std::int64_t na = ia < 0 ? 1 : a.view.shape[ia], nb = ib < 0 ? 1 : b.view.shape[ib];
    if (na != nb && na != 1 && nb != 1)
      fail<ValueError>(op, ": shapes do not broadcast, a is ", Shape{a.view}, ", b is ", Shape{b.view});
    result.shape[i] = na == 1 ? nb : na;
  }
  return result;
}

void binary(int rule, const Operand& a, const Operand& b, const View& out) {
  const char* op = binary_rule(rule).name;
  const View result = binary_result(rule, a, b);
  check_same_dtype(op, "out", out, a.is_number ? "b" : "a", result);
  check_same_shape(op, "out", out, "the result", result);
  check_output(op, "out", out);
  if (!a.is_number) check_apart(op, "a", a.view, out);
  if (!b.is_number) check_apart(op, "b", b.view, out);
  launch(BinaryLaunch{rule, a, b, out});
}

void gradient(int rule, double parameter, const View& dy, const View& saved, const View& out) {
  const RuleInfo& info = gradient_rule(rule);
  check_float(info.name, "dy", dy);
  check_same_dtype(info.name, info.saved, saved, "dy", dy);
  check_same_shape(info.name, info.saved, saved, "dy", dy);
  check_same_dtype(info.name, "out", out, "dy", dy);
  check_same_shape(info.name, "out", out, "dy", dy);
  check_output(info.name, "out", out);
  check_apart(info.name, "dy", dy, out);
  check_apart(info.name, info.saved, saved, out);
  check_parameter(info, parameter);
  launch(GradientLaunch{rule, parameter, dy, saved, out});
}

}  // namespace thalweg::ops
