// How exactly float32 products are computed.
#pragma once

#include <cstdint>

namespace thalweg {

//   strict   float32 multiply-adds only
//   highest  the componentwise bound of the multiply-add path, by whichever path is fastest under it
//   high     three bfloat16 products: |dC| <= 3.1e-5 |A||B|
//   medium   one product of bfloat16
enum class Precision : std::uint8_t { strict, highest, high, medium };

inline constexpr const char* kPrecisions[] = {"strict", "highest", "high", "medium"};

}  // namespace thalweg
