// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror & Shaw, "Parallel random
// numbers: as easy as 1, 2, 3", SC 2011: ten rounds turn a counter of four words and a key of two
// into four uniform words. No state: any thread, rank or device computes any draw by itself.
#pragma once

#include <cstdint>

#include "base/config.h"

namespace thalweg {

struct PhiloxKey {
  std::uint32_t low, high;
};

inline namespace THALWEG_ISA {

struct PhiloxWords {
  std::uint32_t x0, x1, x2, x3;
};

THALWEG_RULE PhiloxWords philox_round(PhiloxWords c, PhiloxKey key) {
  const std::uint64_t p = std::uint64_t{0xD2511F53U} * c.x0, q = std::uint64_t{0xCD9E8D57U} * c.x2;
  return {static_cast<std::uint32_t>(q >> 32) ^ c.x1 ^ key.low, static_cast<std::uint32_t>(q),
          static_cast<std::uint32_t>(p >> 32) ^ c.x3 ^ key.high, static_cast<std::uint32_t>(p)};
}

THALWEG_RULE PhiloxWords philox(PhiloxWords counter, PhiloxKey key) {
  for (int round = 0; round < 10; ++round) {
    counter = philox_round(counter, key);
    key = {key.low + 0x9E3779B9U, key.high + 0xBB67AE85U};  // Weyl: golden ratio, sqrt(3) - 1
  }
  return counter;
}

// Keeps and scales, or drops, one element by its uniform word: P(drop) = threshold / 2^32.
template <class T>
struct DropoutRule {
  std::uint32_t threshold;  // floor(p 2^32)
  T scale;                  // 1 / (1 - p)
  THALWEG_RULE T operator()(T x, std::uint32_t word) const { return word >= threshold ? x * scale : T(0); }
};

}  // namespace THALWEG_ISA
}  // namespace thalweg
