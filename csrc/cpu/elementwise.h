// Element-wise loops over arrays of any layout.
//
// Shapes and aliasing have been checked: inputs broadcast to y, and each is y itself or apart from it.
// `rule` is an index into UnaryRules, BinaryRules or GradientRules.
#pragma once

#include "base/view.h"

namespace thalweg {

// An array, or a number that takes the other operand's dtype.
struct Operand {
  View view;
  double number = 0;
  bool is_number = false;
};

namespace cpu {

void copy(const View& x, const View& y);
void unary(int rule, double parameter, const View& x, const View& y);
void binary(int rule, const Operand& a, const Operand& b, const View& y);
void gradient(int rule, double parameter, const View& dy, const View& saved, const View& dx);

}  // namespace cpu
}  // namespace thalweg
