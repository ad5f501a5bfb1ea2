// Eight tile registers of 16 rows of 64 bytes: AMX's, or their exact image in memory for tests.
//
// AMX by inline assembly: the intrinsics of GCC 12 do not tell the compiler that a tile load reads
// memory, nor a store that it writes it, so it may move either across the packing.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/config.h"
#include "base/float_format.h"

namespace thalweg {
inline namespace THALWEG_ISA {

#if defined(__AMX_BF16__)

struct TileRegisters {
  static void configure() {
    struct alignas(64) {
      std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
      std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    __asm__ volatile("ldtilecfg %0" ::"m"(config) : "memory");
  }
  static void release() { __asm__ volatile("tilerelease" ::: "memory"); }

  template <int kTile>
  static THALWEG_RULE void zero() {
    __asm__ volatile("tilezero %%tmm%c0" ::"i"(kTile));
  }
  template <int kTile>
  static THALWEG_RULE void load(const std::uint16_t* tile, std::int64_t row = 32) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(tile), "r"(2 * row), "i"(kTile) : "memory");
  }
  template <int kTile>
  static THALWEG_RULE void store(float* c, std::int64_t row) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(c), "r"(4 * row), "i"(kTile) : "memory");
  }
  template <int kSum, int kA, int kB>
  static THALWEG_RULE void multiply() {
    __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSum), "i"(kA), "i"(kB));
  }
};

#else

// TDPBF16PS as Intel's manual defines it: per element two chains of 16 multiply-adds, the even and the
// odd k, from zero; their sum is added to the tile. Rounded to nearest, denormals zero in and out.
struct TileRegisters {
  static inline thread_local std::uint16_t words[8][16][32];

  static void configure() { std::memset(words, 0, sizeof words); }
  static void release() {}

  template <int kTile>
  static void zero() {
    std::memset(words[kTile], 0, sizeof words[kTile]);
  }
  template <int kTile>
  static void load(const std::uint16_t* tile, std::int64_t row = 32) {
    for (int i = 0; i < 16; ++i) std::memcpy(words[kTile][i], tile + i * row, 64);
  }
  template <int kTile>
  static void store(float* c, std::int64_t row) {
    for (int i = 0; i < 16; ++i) std::memcpy(c + i * row, words[kTile][i], 64);
  }
  template <int kSum, int kA, int kB>
  static void multiply() {
    for (int i = 0; i < 16; ++i) multiply_row(words[kSum][i], words[kA][i], words[kB]);
  }

 private:
  static float flush(float x) { return std::fabs(x) < 0x1p-126F ? copysign(0.0F, x) : x; }
  static float part(std::uint16_t x) { return flush(from_bits<float>(std::uint32_t{x} << 16)); }

  // The product of two bfloat16 is exact in double, and rounding the double sum once more to float is
  // rounding it once: 53 >= 2 * 24 + 2.
  static float multiply_add(float a, float b, float c) {
    return flush(
        static_cast<float>(static_cast<double>(a) * static_cast<double>(b) + static_cast<double>(c)));
  }

  static void multiply_row(std::uint16_t* sums, const std::uint16_t* a, const std::uint16_t (*b)[32]) {
    float even[16] = {}, odd[16] = {}, c[16];
    for (int k = 0; k < 16; ++k)
      for (int j = 0; j < 16; ++j) {
        even[j] = multiply_add(part(a[2 * k]), part(b[k][2 * j]), even[j]);
        odd[j] = multiply_add(part(a[2 * k + 1]), part(b[k][2 * j + 1]), odd[j]);
      }
    std::memcpy(c, sums, sizeof c);
    for (int j = 0; j < 16; ++j) c[j] = flush(flush(c[j]) + flush(even[j] + odd[j]));
    std::memcpy(sums, c, sizeof c);
  }
};

#endif

}  // namespace THALWEG_ISA
}  // namespace thalweg
