#include "cpu/kernels/pool.h"

#include <algorithm>
#include <cstring>

#include "cpu/kernels/gemm_vector.h"
#include "cpu/kernels/pool_transpose.h"
#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

// Codes beside elements of T in a register: an integer of the same size.
template <class T>
using Code = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
template <class T>
using Codes = Vector<Code<T>>;

// Why not __builtin_convertvector alone: GCC 12 takes bytes apart one by one.
template <class T, class Index>
THALWEG_RULE Codes<T> load_codes(const Index* p) {
  typedef Index Packed __attribute__((vector_size(kWidth<T> * sizeof(Index))));
  Packed packed;
  std::memcpy(&packed, p, sizeof packed);
#if defined(__AVX512F__)
  if constexpr (sizeof(Index) == 1 && sizeof(T) == 4)
    return (Codes<T>)_mm512_maskz_cvtepu8_epi32(0xffff, (__m128i)packed);
  else if constexpr (sizeof(Index) == 1)
    return (Codes<T>)_mm512_maskz_cvtepu8_epi64(0xff, _mm_loadl_epi64((const __m128i*)&packed));
#elif defined(__AVX2__)
  if constexpr (sizeof(Index) == 1 && sizeof(T) == 4)
    return (Codes<T>)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)&packed));
#endif
  return __builtin_convertvector(packed, Codes<T>);
}
template <class T, class Index>
THALWEG_RULE void store_codes(Index* p, Codes<T> codes) {
  typedef Index Packed __attribute__((vector_size(kWidth<T> * sizeof(Index))));
#if defined(__AVX512F__)
  if constexpr (sizeof(Index) == 1 && sizeof(T) == 4) {
    _mm_storeu_si128((__m128i*)p, _mm512_maskz_cvtepi32_epi8(0xffff, (__m512i)codes));
    return;
  }
#endif
  const Packed packed = __builtin_convertvector(codes, Packed);
  std::memcpy(p, &packed, sizeof packed);
}

// How a register's worth of a result is read and written: as it is, or of n < kWidth elements.
template <class T>
struct Whole {
  THALWEG_RULE Vector<T> load(const T* p) const { return thalweg::THALWEG_ISA::load(p); }
  THALWEG_RULE void store(T* p, Vector<T> v) const { thalweg::THALWEG_ISA::store(p, v); }
  template <class Index>
  THALWEG_RULE Codes<T> codes(const Index* p) const {
    return load_codes<T>(p);
  }
  template <class Index>
  THALWEG_RULE void store(Index* p, Codes<T> codes) const {
    store_codes<T>(p, codes);
  }
  // sum + x where p names `code`
  template <class Index>
  THALWEG_RULE Vector<T> add_chosen(Vector<T> sum, const T* x, const Index* p, std::int32_t code) const {
#if defined(__AVX512F__)
    if constexpr (sizeof(Index) == 1 && sizeof(T) == 4) {
      const __mmask16 chosen =
          _mm_cmpeq_epi8_mask(_mm_loadu_si128((const __m128i*)p), _mm_set1_epi8(static_cast<char>(code)));
      return (Vector<T>)_mm512_mask_add_ps((__m512)sum, chosen, (__m512)sum, (__m512)load(x));
    }
#endif
    return sum + (Vector<T>)((codes(p) == broadcast<Code<T>>(code)) & (Codes<T>)load(x));
  }
};

template <class T>
struct Part {
  Lanes<T> lanes;
  std::int64_t n;

  explicit Part(std::int64_t count) : lanes(static_cast<int>(count)), n(count) {}
  THALWEG_RULE Vector<T> load(const T* p) const { return lanes.load(p); }
  THALWEG_RULE void store(T* p, Vector<T> v) const { lanes.store(p, v); }
  template <class Index>
  THALWEG_RULE Codes<T> codes(const Index* p) const {
    Index all[kWidth<T>] = {};
    for (std::int64_t i = 0; i < n; ++i) all[i] = p[i];
    return load_codes<T>(all);
  }
  template <class Index>
  THALWEG_RULE void store(Index* p, Codes<T> codes) const {
    Index all[kWidth<T>];
    store_codes<T>(all, codes);
    for (std::int64_t i = 0; i < n; ++i) p[i] = all[i];
  }
  template <class Index>
  THALWEG_RULE Vector<T> add_chosen(Vector<T> sum, const T* x, const Index* p, std::int32_t code) const {
    return sum + (Vector<T>)((codes(p) == broadcast<Code<T>>(code)) & (Codes<T>)load(x));
  }
};

// f(window, number, i, vectors, access) for every window of a row and for pieces of several registers
// (a constant) that cover [0, n) from i on; a last one overlaps the one before.
template <class T, int kMost, class F>
THALWEG_RULE void for_pieces_of(const PoolRow& row, const F& f) {
  constexpr std::int64_t w = kWidth<T>;
  constexpr std::integral_constant<int, kMost> most;
  constexpr std::integral_constant<int, 1> one;
  if (row.n < w) {
    const Part<T> part(row.n);
    for (std::int64_t r = 0; r < row.count; ++r) f(row.windows[r], r, std::int64_t{0}, one, part);
    return;
  }
  for (std::int64_t r = 0; r < row.count; ++r) {
    std::int64_t i = 0;
    for (; i + kMost * w <= row.n; i += kMost * w) f(row.windows[r], r, i, most, Whole<T>());
    for (; i + w <= row.n; i += w) f(row.windows[r], r, i, one, Whole<T>());
    if (i < row.n) f(row.windows[r], r, row.n - w, one, Whole<T>());
  }
}

template <class T>
struct Best {
  Vector<T> value;
  Codes<T> code;

  THALWEG_RULE void meet(Vector<T> v, std::int32_t c) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
      const __mmask16 larger = static_cast<__mmask16>(_mm512_cmp_ps_mask(v, value, _CMP_GT_OQ) |
                                                      _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q));
      value = _mm512_mask_mov_ps(value, larger, v);
      code = (Codes<T>)_mm512_mask_set1_epi32((__m512i)code, larger, c);
      return;
    }
#endif
    const Codes<T> larger = (v > value) | (v != v);
    value = larger ? v : value;
    code = larger ? broadcast<Code<T>>(c) : code;
  }

  THALWEG_RULE void relu(std::int32_t none) {
    const Codes<T> cut = value <= Vector<T>{};
    value = cut ? Vector<T>{} : value;
    code = cut ? broadcast<Code<T>>(none) : code;
  }
};

template <class T, class Index>
void max_forward(const T* x, const PoolRow& row, bool relu, T* y, Index* index) {
  for_pieces_of<T, 4>(row, [&](const PoolWindow& window, std::int64_t r, std::int64_t i, auto vectors,
                               const auto& access) __attribute__((always_inline)) {
    const T* from = x + window.offset + i;
    Best<T> best[vectors];
    for (int v = 0; v < vectors; ++v)
      best[v] = {access.load(from + window.taps[0].offset + v * kWidth<T>),
                 broadcast<Code<T>>(window.taps[0].code)};
    for (std::int64_t t = 1; t < window.count; ++t)
      for (int v = 0; v < vectors; ++v)
        best[v].meet(access.load(from + window.taps[t].offset + v * kWidth<T>), window.taps[t].code);
    for (int v = 0; v < vectors; ++v) {
      if (relu) best[v].relu(static_cast<std::int32_t>(kNoTap<Index>));
      access.store(y + r * row.step + i + v * kWidth<T>, best[v].value);
      access.store(index + r * row.code + i + v * kWidth<T>, best[v].code);
    }
  });
}

template <class T, class Index>
void max_backward(const T* dy, const Index* index, const PoolRow& row, T* dx) {
  for_pieces_of<T, 4>(row, [&](const PoolWindow& window, std::int64_t r, std::int64_t i, auto vectors,
                               const auto& access) __attribute__((always_inline)) {
    Vector<T> sum[vectors] = {};
    for (std::int64_t t = 0; t < window.count; ++t) {
      const PoolTap& tap = window.taps[t];
      const T* from = dy + window.offset + tap.offset + i;
      const Index* codes = index + window.index + tap.index + i;
      for (int v = 0; v < vectors; ++v)
        sum[v] = access.add_chosen(sum[v], from + v * kWidth<T>, codes + v * kWidth<T>, tap.code);
    }
    for (int v = 0; v < vectors; ++v) access.store(dx + r * row.step + i + v * kWidth<T>, sum[v]);
  });
}

template <class T, class Index>
void max_pick(const T* x, const Index* index, const PoolRow& row, T* y) {
  for_pieces_of<T, 1>(row, [&](const PoolWindow& window, std::int64_t r, std::int64_t i, auto,
                               const auto& access) __attribute__((always_inline)) {
    const Codes<T> codes = access.codes(index + r * row.code + i);
    Vector<T> picked{};
    for (std::int64_t t = 0; t < window.count; ++t) {
      const PoolTap& tap = window.taps[t];
      picked =
          codes == broadcast<Code<T>>(tap.code) ? access.load(x + window.offset + tap.offset + i) : picked;
    }
    access.store(y + r * row.step + i, picked);
  });
}

constexpr int kMeanVectors = 8;

// The windows' sums, divided.
template <class T>
void sum_windows(const T* x, const PoolRow& row, T* y) {
  for_pieces_of<T, kMeanVectors>(row, [&](const PoolWindow& window, std::int64_t r, std::int64_t i,
                                          auto vectors, const auto& access) __attribute__((always_inline)) {
    const T* from = x + window.offset + i;
    Vector<T> sum[vectors] = {};
    for (std::int64_t t = 0; t < window.count; ++t)
      for (int v = 0; v < vectors; ++v) sum[v] += access.load(from + window.taps[t].offset + v * kWidth<T>);
    const Vector<T> divisor = broadcast(static_cast<T>(window.divisor));
    for (int v = 0; v < vectors; ++v)
      access.store(y + r * row.step + i + v * kWidth<T>, window.divisor == 1 ? sum[v] : sum[v] / divisor);
  });
}

// One wide window a few taps at a time: as many streams as the processor fetches ahead of.
template <class T>
void sum_in_streams(const T* x, const PoolWindow& window, std::int64_t n, T* y) {
  constexpr std::int64_t kStreams = 12;
  std::int64_t first = 0;
  do {
    const std::int64_t end = std::min(window.count, first + kStreams);
    const bool divided = end == window.count && window.divisor != 1;
    const Vector<T> divisor = broadcast(static_cast<T>(window.divisor));
    for (std::int64_t i = 0; i < n; i += kWidth<T>) {
      Vector<T> sum = first > 0 ? load(y + i) : Vector<T>{};
      for (std::int64_t t = first; t < end; ++t) sum += load(x + window.offset + window.taps[t].offset + i);
      store(y + i, divided ? sum / divisor : sum);
    }
  } while ((first += kStreams) < window.count);
}

template <class T>
void mean(const T* x, const PoolRow& row, T* y) {
  constexpr std::int64_t kManyTaps = 16;
  const bool wide = row.n > kMeanVectors * kWidth<T> && row.n % kWidth<T> == 0;
  if (!wide || row.count == 0 || row.windows[0].count < kManyTaps) return sum_windows(x, row, y);
  for (std::int64_t r = 0; r < row.count; ++r) sum_in_streams(x, row.windows[r], row.n, y + r * row.step);
}

template <class T, class Index>
constexpr MaxPoolLoops<T, Index> kMax{max_forward<T, Index>, max_backward<T, Index>, max_pick<T, Index>};
template <class T>
constexpr PoolLoops<T> kLoops{kMax<T, std::uint8_t>, kMax<T, std::int32_t>, mean<T>};

}  // namespace

void fill(PoolKernels& kernels) {
  kernels.f32 = kLoops<float>;
  kernels.f64 = kLoops<double>;
  kernels.bytes = {gather_bytes, scatter_bytes};
  kernels.words = {gather_planes<float>, scatter_planes<float>};
  kernels.pairs = {gather_planes<double>, scatter_planes<double>};
}

}  // namespace thalweg::THALWEG_ISA
