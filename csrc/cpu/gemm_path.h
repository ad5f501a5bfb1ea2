// Which path a matrix product takes: multiply-adds, or one, three or six products of bfloat16 parts.
#pragma once

#include "cpu/gemm.h"
#include "rules/precision.h"

namespace thalweg {

struct GemmPath {
  int products = 0;  // of bfloat16 parts; 0: float32 or float64 multiply-adds
  const char* name = nullptr;
  const char* reason = nullptr;
};

// By dtype, extents, precision and the instruction set in use alone.
GemmPath gemm_path(const GemmProblem& problem, Precision precision);

// C = A B by that path.
void gemm(const GemmProblem& problem, Precision precision);

}  // namespace thalweg
