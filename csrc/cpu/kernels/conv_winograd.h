// The transforms of Winograd's minimal filtering F(4x4, 3x3) (Lavin & Gray 2016, arXiv:1509.09308), at
// the points 0, 1, -1, 2, -2: a tile of 4 x 4 results takes 36 products instead of 144.
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

struct WinogradKernels {
  void (*transforms[5])(const WinogradTile&) = {};  // by WinogradTransform

  void operator()(WinogradTransform which, const WinogradTile& tile) const {
    transforms[static_cast<int>(which)](tile);
  }
};

}  // namespace thalweg
