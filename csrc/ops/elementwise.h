// Element-wise operations: checks and launch. `rule` is an index into the list of rules/elementwise.h
// that the function is named after, `op` the name for errors.
#pragma once

#include "cpu/elementwise.h"

namespace thalweg::ops {

// TypeError unless x is float32 or float64; ValueError where `out` has another shape or overlaps an
// input without being the same array, or the parameter leaves its range.
void unary(int rule, double parameter, const View& x, const View& out);

// The dtype and broadcast shape of rule(a, b), without memory. TypeError for two numbers and for
// dtypes that are no floats or differ; ValueError for shapes that do not broadcast.
View binary_result(int rule, const Operand& a, const Operand& b);
void binary(int rule, const Operand& a, const Operand& b, const View& out);

// dx from dy and what the forward call saved, all of one shape.
void gradient(int rule, double parameter, const View& dy, const View& saved, const View& out);

}  // namespace thalweg::ops
