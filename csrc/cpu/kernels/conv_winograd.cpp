#include "cpu/kernels/conv_winograd.h"

#include <algorithm>

#include "cpu/kernels/gemm_vector.h"
#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

using V = Vector<float>;

// One side of each transform: kIn vectors to kOut.
struct Image {  // B^T
  static constexpr int kIn = 6, kOut = 6;
  static THALWEG_RULE void apply(const V* d, V* t) {
    const V even = d[4] - 4.0F * d[2], odd = d[3] - 4.0F * d[1];
    const V outer = d[4] - d[2], inner = 2.0F * (d[3] - d[1]);
    t[0] = 4.0F * d[0] - 5.0F * d[2] + d[4];
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = outer + inner;
    t[4] = outer - inner;
    t[5] = 4.0F * d[1] - 5.0F * d[3] + d[5];
  }
};

// Rows of G are (1, p, p^2, …) for the points p, over 4, -6, -6, 24, 24, and (0, …, 0, 1).
template <int kKernel>
struct Weights;
template <>
struct Weights<3> {
  static constexpr int kIn = 3, kOut = 6;
  static THALWEG_RULE void apply(const V* g, V* t) {
    const V outer = (g[0] + g[2]) * (-1.0F / 6), middle = g[1] * (-1.0F / 6);
    const V wide = g[0] * (1.0F / 24) + g[2] * (1.0F / 6), half = g[1] * (1.0F / 12);
    t[0] = g[0] * 0.25F;
    t[1] = outer + middle;
    t[2] = outer - middle;
    t[3] = wide + half;
    t[4] = wide - half;
    t[5] = g[2];
  }
};
template <>
struct Weights<5> {
  static constexpr int kIn = 5, kOut = 6;
  static THALWEG_RULE void apply(const V* g, V* t) {
    const V outer = (g[0] + g[2] + g[4]) * (-1.0F / 6), middle = (g[1] + g[3]) * (-1.0F / 6);
    const V wide = g[0] * (1.0F / 24) + g[2] * (1.0F / 6) + g[4] * (2.0F / 3);
    const V half = g[1] * (1.0F / 12) + g[3] * (1.0F / 3);
    t[0] = g[0] * 0.25F;
    t[1] = outer + middle;
    t[2] = outer - middle;
    t[3] = wide + half;
    t[4] = wide - half;
    t[5] = g[4];
  }
};

// Columns of A^T are (1, p, p^2, …) for the points p, and (0, …, 0, 1).
template <int kKernel>
struct Results;
template <>
struct Results<3> {
  static constexpr int kIn = 6, kOut = 4;
  static THALWEG_RULE void apply(const V* m, V* t) {
    const V p = m[1] + m[2], q = m[1] - m[2], r = m[3] + m[4], s = m[3] - m[4];
    t[0] = m[0] + p + r;
    t[1] = q + 2.0F * s;
    t[2] = p + 4.0F * r;
    t[3] = q + 8.0F * s + m[5];
  }
};
template <>
struct Results<5> {
  static constexpr int kIn = 6, kOut = 2;
  static THALWEG_RULE void apply(const V* m, V* t) {
    t[0] = m[0] + (m[1] + m[2]) + (m[3] + m[4]);
    t[1] = (m[1] - m[2]) + 2.0F * (m[3] - m[4]) + m[5];
  }
};

template <int kKernel>
struct Gradient;  // A
template <>
struct Gradient<3> {
  static constexpr int kIn = 4, kOut = 6;
  static THALWEG_RULE void apply(const V* y, V* t) {
    const V even = y[0] + y[2], odd = y[1] + y[3];
    const V far = y[0] + 4.0F * y[2], far_odd = 2.0F * y[1] + 8.0F * y[3];
    t[0] = y[0];
    t[1] = even + odd;
    t[2] = even - odd;
    t[3] = far + far_odd;
    t[4] = far - far_odd;
    t[5] = y[3];
  }
};
template <>
struct Gradient<5> {
  static constexpr int kIn = 2, kOut = 6;
  static THALWEG_RULE void apply(const V* y, V* t) {
    const V twice = 2.0F * y[1];
    t[0] = y[0];
    t[1] = y[0] + y[1];
    t[2] = y[0] - y[1];
    t[3] = y[0] + twice;
    t[4] = y[0] - twice;
    t[5] = y[1];
  }
};

template <int kKernel>
struct WeightGradient {  // G^T
  static constexpr int kIn = 6, kOut = kKernel;
  static THALWEG_RULE void apply(const V* m, V* t) {
    const V near = (m[1] + m[2]) * (-1.0F / 6), near_odd = (m[2] - m[1]) * (1.0F / 6);
    const V far = m[3] + m[4], far_odd = m[3] - m[4];
    t[0] = m[0] * 0.25F + near + far * (1.0F / 24);
    t[1] = near_odd + far_odd * (1.0F / 12);
    t[2] = near + far * (1.0F / 6);
    if constexpr (kKernel == 5) {
      t[3] = near_odd + far_odd * (1.0F / 3);
      t[4] = near + far * (2.0F / 3);
    }
    t[kKernel - 1] = t[kKernel - 1] + m[5];
  }
};

template <class P>
void transform(const WinogradTile& t) {
  for (std::int64_t c = 0; c < t.channels; c += kWidth<float>) {
    const Lanes<float> some(static_cast<int>(std::min<std::int64_t>(kWidth<float>, t.channels - c)));
    V half[P::kOut][P::kIn];
#pragma GCC unroll 6
    for (int j = 0; j < P::kIn; ++j) {
      V in[P::kIn], out[P::kOut];
#pragma GCC unroll 6
      for (int i = 0; i < P::kIn; ++i) in[i] = some.load(t.from + i * t.from_row + j * t.from_column + c);
      P::apply(in, out);
#pragma GCC unroll 6
      for (int i = 0; i < P::kOut; ++i) half[i][j] = out[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < P::kOut; ++i) {
      V out[P::kOut];
      P::apply(half[i], out);
#pragma GCC unroll 6
      for (int j = 0; j < P::kOut; ++j) some.store(t.to + i * t.to_row + j * t.to_column + c, out[j]);
    }
  }
}

template <int kKernel>
WinogradFamily family() {
  return {{transform<Image>, transform<Weights<kKernel>>, transform<Results<kKernel>>,
           transform<Gradient<kKernel>>, transform<WeightGradient<kKernel>>}};
}

}  // namespace

void fill(WinogradKernels& kernels) {
  kernels.three = family<3>();
  kernels.five = family<5>();
}

}  // namespace thalweg::THALWEG_ISA
