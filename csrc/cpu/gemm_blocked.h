// Products of any shape and layout, in blocks that fit the caches, on all threads.
#pragma once

#include "cpu/gemm.h"

namespace thalweg {

template <class T>
void multiply_blocked(const GemmProblem& p);

}  // namespace thalweg
