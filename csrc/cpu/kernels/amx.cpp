// Products of bfloat16 parts on tile registers: 32 x 32 of C in four of them, two of A, two of B.
//
// Loads stand between the products that they feed. Of the operands of two successive products one stays
// where it is, so that six products take 16 loads for 24 tile products, three 8 for 12.
#include "cpu/kernels/bf16_pack.h"
#include "cpu/kernels/gemm_bf16.h"
#include "cpu/kernels/tiles.h"

namespace thalweg::THALWEG_ISA {
namespace {

using T = TileRegisters;

constexpr std::int64_t kBlockSlabs = 32;  // 1024 of k, summed in registers

// tmm0 … tmm3: C by (row tile, column tile); tmm4, tmm5: A; tmm6, tmm7: B.
template <bool kTall, bool kWide>
struct Step {
  std::int64_t a_row;  // words

  THALWEG_RULE void both(const std::uint16_t* a, const std::uint16_t* b) const {
    T::load<4>(a, a_row);
    T::load<6>(b);
    T::multiply<0, 4, 6>();
    if constexpr (kWide) T::load<7>(b + kTileWords), T::multiply<1, 4, 7>();
    if constexpr (kTall) T::load<5>(a + kTileLines * a_row, a_row), T::multiply<2, 5, 6>();
    if constexpr (kTall && kWide) T::multiply<3, 5, 7>();
  }
  THALWEG_RULE void next_a(const std::uint16_t* a) const {
    T::load<4>(a, a_row);
    T::multiply<0, 4, 6>();
    if constexpr (kWide) T::multiply<1, 4, 7>();
    if constexpr (kTall) T::load<5>(a + kTileLines * a_row, a_row), T::multiply<2, 5, 6>();
    if constexpr (kTall && kWide) T::multiply<3, 5, 7>();
  }
  THALWEG_RULE void next_b(const std::uint16_t* b) const {
    T::load<6>(b);
    T::multiply<0, 4, 6>();
    if constexpr (kTall) T::multiply<2, 5, 6>();
    if constexpr (kWide) T::load<7>(b + kTileWords), T::multiply<1, 4, 7>();
    if constexpr (kTall && kWide) T::multiply<3, 5, 7>();
  }
};

// Slabs begin … end of k onto the sums. Six products: the small ones first, then a1 b1, so that few
// roundings happen at full magnitude (docs/numerics.md).
template <int kParts, bool kTall, bool kWide>
THALWEG_RULE void multiply_slabs(const Bf16Tile& t, std::int64_t begin, std::int64_t end) {
  const Step<kTall, kWide> step{t.a_row};
  const std::int64_t a1 = 0, a2 = t.a_part, a3 = 2 * t.a_part, b1 = 0, b2 = t.b_part, b3 = 2 * t.b_part;
  const std::uint16_t* const first_b = t.b + begin * 2 * kTileWords;
  const std::uint16_t* b = first_b;
  for (std::int64_t slab = begin; kParts == 3 && slab < end; ++slab, b += 2 * kTileWords) {
    const std::uint16_t* const a = t.a_at(slab);
    step.both(a + a3, b + b1);
    step.next_a(a + a2);
    step.next_b(b + b2);
    step.next_a(a + a1);
    step.next_b(b + b3);
  }
  b = first_b;
  for (std::int64_t slab = begin; slab < end; ++slab, b += 2 * kTileWords) {
    const std::uint16_t* const a = t.a_at(slab);
    step.both(a + (kParts == 2 ? a2 : a1), b + b1);
    if constexpr (kParts == 2) step.next_a(a + a1), step.next_b(b + b2);
  }
}

template <int kParts, bool kTall, bool kWide>
void multiply(const Bf16Tile& t) {
  constexpr int kColumns = kWide ? 32 : 16;
  alignas(64) float sums[32 * kColumns];
  const std::int64_t slabs = (t.k + kTileDepth - 1) / kTileDepth;
  for (std::int64_t begin = 0; begin < slabs; begin += kBlockSlabs) {
    T::zero<0>(), T::zero<1>(), T::zero<2>(), T::zero<3>();
    multiply_slabs<kParts, kTall, kWide>(t, begin, std::min(slabs, begin + kBlockSlabs));
    T::store<0>(sums, kColumns);
    if constexpr (kWide) T::store<1>(sums + 16, kColumns);
    if constexpr (kTall) T::store<2>(sums + 16 * kColumns, kColumns);
    if constexpr (kTall && kWide) T::store<3>(sums + 16 * kColumns + 16, kColumns);
    const bool add = t.accumulate || begin > 0;
    for (int i = 0; i < t.rows; ++i) {
      float* const c = t.c + i * t.c_row;
      const float* const sum = sums + i * kColumns;
#pragma GCC ivdep
      for (int j = 0; j < kColumns; ++j) c[j] = add ? c[j] + sum[j] : sum[j];
    }
  }
}

template <int kParts>
void tile(const Bf16Tile& t) {
  if (t.rows > 16 && t.columns > 16)
    multiply<kParts, true, true>(t);
  else if (t.rows > 16)
    multiply<kParts, true, false>(t);
  else if (t.columns > 16)
    multiply<kParts, false, true>(t);
  else
    multiply<kParts, false, false>(t);
}

}  // namespace

Bf16Kernels make_bf16_kernels() {
  Bf16Kernels kernels;
#if defined(__AMX_BF16__)
  kernels.name = "AMX";
#else
  kernels.name = "emulated AMX";
#endif
  kernels.rows = 32;
  kernels.row_step = 16;
  kernels.split = true;
  kernels.begin = [] { T::configure(); };
  kernels.end = [] { T::release(); };
  kernels.tiles[1] = tile<1>;
  kernels.tiles[2] = tile<2>;
  kernels.tiles[3] = tile<3>;
  fill_packs(kernels);
  return kernels;
}

}  // namespace thalweg::THALWEG_ISA
