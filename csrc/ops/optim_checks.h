// What arrays an optimizer's tensors may consist of.
#pragma once

#include <string>

#include "ops/optim.h"
#include "rules/quantize.h"

namespace thalweg::ops {

inline constexpr const char* kOp = "optimizer";

inline std::string indexed(const char* name, std::size_t i) {
  return std::string(name) + "[" + std::to_string(i) + "]";
}

// A step writes to it: contiguous, like the parameter, not read-only.
inline void check_written(const std::string& name, const View& view, const View& param, std::size_t i) {
  check_same_dtype(kOp, name.c_str(), view, indexed("params", i).c_str(), param);
  check_same_shape(kOp, name.c_str(), view, indexed("params", i).c_str(), param);
  check_contiguous(kOp, name.c_str(), view);
  check_output(kOp, name.c_str(), view);
}

inline Half format_of(DType dtype) {
  return dtype == DType::bf16 ? Half::bf16 : dtype == DType::f16 ? Half::f16 : Half::none;
}

// Parameters of 16 bits have a float32 master, others have none.
inline void check_master(const OptimTensorViews& tensor, std::size_t i) {
  const std::string name = indexed("params", i), master = indexed("masters", i);
  if (format_of(tensor.param.dtype) == Half::none) {
    check_float(kOp, name.c_str(), tensor.param);
    if (tensor.master) fail<ValueError>(kOp, ": ", name, " is ", tensor.param.dtype, " and needs no master");
    return;
  }
  if (!tensor.master)
    fail<ValueError>(kOp, ": ", name, " is ", tensor.param.dtype, ", which needs a float32 master copy");
  if (tensor.master->dtype != DType::f32)
    fail<TypeError>(kOp, ": ", master, " must be float32, got ", tensor.master->dtype);
  check_same_shape(kOp, master.c_str(), *tensor.master, name.c_str(), tensor.param);
  check_contiguous(kOp, master.c_str(), *tensor.master);
  check_output(kOp, master.c_str(), *tensor.master);
}

// A copy of 16 bits belongs to a float32 parameter.
inline void check_copy(const OptimTensorViews& tensor, std::size_t i) {
  const std::string param = indexed("params", i), copy = indexed("copies", i);
  if (tensor.param.dtype != DType::f32)
    fail<TypeError>(kOp, ": ", param, " is ", tensor.param.dtype, "; only float32 has a copy of 16 bits");
  if (format_of(tensor.copy->dtype) == Half::none)
    fail<TypeError>(kOp, ": ", copy, " must be bfloat16 or float16, got ", tensor.copy->dtype);
  check_same_shape(kOp, copy.c_str(), *tensor.copy, param.c_str(), tensor.param);
  check_contiguous(kOp, copy.c_str(), *tensor.copy);
}

// Codes of 8 bits, and the scale of each block of them.
inline void check_quantized(int rule, const OptimTensorViews& tensor, std::size_t i) {
  if (!cpu::rule_has_8bit_states(rule))
    fail<ValueError>(kOp, ": rule '", cpu::rule_name(rule), "' has no states of 8 bits");
  const std::string param = indexed("params", i);
  if (tensor.param.dtype == DType::f64)
    fail<TypeError>(kOp, ": ", param, " is float64; states of 8 bits are for float32, bfloat16 and float16");
  for (std::size_t k = 0; k < tensor.states.size(); ++k) {
    const std::string name = indexed(cpu::rule_state_name(rule, static_cast<int>(k)), i);
    const View &codes = tensor.states[k], &absmax = tensor.absmax[k];
    if (codes.dtype != DType::u8 || absmax.dtype != DType::f32)
      fail<TypeError>(kOp, ": ", name, " must be uint8 with float32 scales, got ", codes.dtype, " and ",
                      absmax.dtype);
    check_same_shape(kOp, name.c_str(), codes, param.c_str(), tensor.param);
    check_contiguous(kOp, name.c_str(), codes);
    const std::string scales = "absmax of " + name;
    check_length(kOp, scales.c_str(), absmax, (codes.elements() + kQuantBlock - 1) / kQuantBlock);
    check_contiguous(kOp, scales.c_str(), absmax);
  }
}

inline void check_distinct(const auto& sorted) {
  for (std::size_t i = 1; i < sorted.size(); ++i)
    if (sorted[i].extent.begin < sorted[i - 1].extent.end)
      fail<ValueError>(kOp, ": ", sorted[i - 1].name, " and ", sorted[i].name,
                       " share memory; give every array once and without overlap");
}

inline bool by_address(const auto& a, const auto& b) { return a.extent.begin < b.extent.begin; }

}  // namespace thalweg::ops
