// Matrix products with NumPy's shapes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/view.h"
#include "cuda/families.h"
#include "rules/activation.h"
#include "rules/precision.h"

namespace thalweg::ops {

struct MatmulOptions {
  bool accumulate = false;
  const View* bias = nullptr;
  Activation activation = Activation::identity;
  Precision precision = Precision::highest;
};

// Shape of numpy.matmul(a, b); checks a and b on the way.
struct MatmulShape {
  int rank = 0;
  std::int64_t extents[kMaxRank] = {};
};
MatmulShape matmul_shape(const View& a, const View& b);

// out = activation((accumulate ? out : 0) + a @ b + bias). bfloat16 operands are summed in float32; their
// out may be float32, and so may their bias.
void matmul(const View& a, const View& b, const View& out, const MatmulOptions& options);

Precision parse_precision(const char* op, std::string_view name);
const char* name_of(Precision precision);
// On a GPU. Three tf32 products come close to float32's accuracy but are not proved to reach that of
// multiply-adds, so they serve "high" alone.
cuda::GemmScheme scheme_for(Precision precision);
Precision matmul_precision();  // of calls that name none; one setting for all threads
void set_matmul_precision(Precision precision);

// The path that (m, k) @ (k, n) takes on this CPU, and why.
struct MatmulPath {
  std::string path;
  const char* reason;
};
MatmulPath matmul_path(std::int64_t m, std::int64_t k, std::int64_t n, DType dtype, Precision precision);

}  // namespace thalweg::ops
