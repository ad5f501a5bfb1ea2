// Checks and channel vectors that batch and layer normalisation share.
#pragma once

#include <cmath>
#include <cstdint>
#include <optional>

#include "base/scratch.h"
#include "base/view.h"

namespace thalweg::ops {

inline void check_vector(const char* op, const char* name, const std::optional<View>& v, const View& x,
                         std::int64_t length) {
  if (!v) return;
  check_same_dtype(op, name, *v, "x", x);
  check_length(op, name, *v, length);
}

// Statistics come in double, or in the dtype of x.
inline void check_statistic(const char* op, const char* name, const View& v, const View& x,
                            std::int64_t length) {
  check_same_device(op, name, v, "x", x);
  if (v.dtype != DType::f64) check_same_dtype(op, name, v, "x", x);
  check_length(op, name, v, length);
}

inline void check_like_x(const char* op, const char* name, const View& v, const View& x) {
  check_same_dtype(op, name, v, "x", x);
  check_same_shape(op, name, v, "x", x);
}

inline void check_eps(const char* op, double eps) {
  if (!(eps >= 0 && std::isfinite(eps)))
    fail<ValueError>(op, ": eps must be at least 0 and finite, got ", eps);
}

// The elements of a vector, whatever its dtype and stride.
class Doubles {
 public:
  explicit Doubles(const View& v) : values_(v.shape[0]) {
    for (std::int64_t i = 0; i < v.shape[0]; ++i) {
      const std::int64_t at = i * v.strides[0];
      values_[i] =
          v.dtype == DType::f64 ? v.as<const double>()[at] : static_cast<double>(v.as<const float>()[at]);
    }
  }
  double* data() const { return values_.get(); }

 private:
  const Scratch<double> values_;
};

inline double bytes_of(const std::optional<View>& v) { return v ? v->bytes() : 0; }
inline double elements_of(const View& v) { return static_cast<double>(v.elements()); }

}  // namespace thalweg::ops
