// Element types.
#pragma once

#include <cstdint>
#include <ostream>

namespace thalweg {

enum class DType : std::uint8_t { f32, f64, bf16, f16, i32, i64, u8, boolean, other };

constexpr std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f64:
    case DType::i64:
      return 8;
    case DType::f32:
    case DType::i32:
      return 4;
    case DType::bf16:
    case DType::f16:
      return 2;
    default:
      return 1;
  }
}

constexpr const char* name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "float32";
    case DType::f64:
      return "float64";
    case DType::bf16:
      return "bfloat16";
    case DType::f16:
      return "float16";
    case DType::i32:
      return "int32";
    case DType::i64:
      return "int64";
    case DType::u8:
      return "uint8";
    case DType::boolean:
      return "bool";
    default:
      return "another dtype";
  }
}

inline std::ostream& operator<<(std::ostream& os, DType dtype) { return os << name_of(dtype); }

template <class T>
inline constexpr DType dtype_of = DType::other;
template <>
inline constexpr DType dtype_of<float> = DType::f32;
template <>
inline constexpr DType dtype_of<double> = DType::f64;
template <>
inline constexpr DType dtype_of<std::int32_t> = DType::i32;
template <>
inline constexpr DType dtype_of<std::int64_t> = DType::i64;

// Calls f(T{}) with the float type that `dtype` names; the caller has checked that it is one.
template <class F>
decltype(auto) with_float_type(DType dtype, F&& f) {
  return dtype == DType::f64 ? f(double{}) : f(float{});
}

}  // namespace thalweg
