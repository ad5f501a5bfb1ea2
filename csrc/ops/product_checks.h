// What operands of products and convolutions have in common.
#pragma once

#include "base/error.h"
#include "base/view.h"
#include "plan/device.h"

namespace thalweg::ops {

inline void check_factor_dtype(const char* op, const char* name, const View& v) {
  if (v.dtype != DType::f32 && v.dtype != DType::f64 && v.dtype != DType::bf16)
    fail<TypeError>(op, ": ", name, " must be float32, float64 or bfloat16, got ", v.dtype);
  if (v.dtype == DType::bf16 && table_for(v.device))
    fail<TypeError>(op, ": ", name,
                    " is bfloat16, which has no CUDA kernel; pass float32 with precision='medium'");
}

}  // namespace thalweg::ops
