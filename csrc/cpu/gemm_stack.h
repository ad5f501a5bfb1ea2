// Stacks of small products, where deciding how to cut each one would cost as much as the product.
#pragma once

#include "cpu/gemm.h"

namespace thalweg {

// Does the product and returns true if it is one of a few tiles, or a stack of such ones.
template <class T>
bool multiply_stack(const GemmProblem& p);

}  // namespace thalweg
