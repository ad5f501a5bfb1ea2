// Products of bfloat16 operands by float32 multiply-adds, on CPUs without bfloat16 products.
#pragma once

#include "cpu/gemm.h"

namespace thalweg {

void gemm_widened(const GemmProblem& problem);

}  // namespace thalweg
