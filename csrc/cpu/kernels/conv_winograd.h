// The transforms of Winograd's minimal filtering F(m x m, r x r) with m + r - 1 = 6 (Lavin & Gray 2016,
// arXiv:1509.09308), at the points 0, 1, -1, 2, -2 and infinity. A tile of m x m results of an r x r kernel
// takes 36 products: instead of 144 for F(4x4, 3x3), of 100 for F(2x2, 5x5).
//
//   results = A^T [(G weights G^T) * (B^T image B)] A
//   gradient of weights = G^T [(B^T image B) * (A gradient A^T)] G
#pragma once

#include <cstdint>

namespace thalweg {

enum class WinogradTransform : std::uint8_t { image, weights, results, gradient, weight_gradient };

// to[i * to_row + j * to_column + c] = (P from P^T)(i, j), where from(i, j) is that at
// i * from_row + j * from_column + c, for all channels c. Nothing beyond `channels` is touched.
struct WinogradTile {
  const float* from;
  std::int64_t from_row, from_column;
  float* to;
  std::int64_t to_row, to_column;
  std::int64_t channels;
};

// Of one kernel size.
struct WinogradFamily {
  void (*transforms[5])(const WinogradTile&) = {};  // by WinogradTransform

  void operator()(WinogradTransform which, const WinogradTile& tile) const {
    transforms[static_cast<int>(which)](tile);
  }
};

struct WinogradKernels {
  WinogradFamily three, five;

  const WinogradFamily& family(std::int64_t kernel) const { return kernel == 3 ? three : five; }
};

}  // namespace thalweg
