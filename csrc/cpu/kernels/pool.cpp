#include "cpu/kernels/pool.h"

#include <cstring>

#include "cpu/kernels/gemm_vector.h"
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

// f(i) for whole vectors that cover [0, n); the last one overlaps the one before. For n below a vector
// f sees arrays of one vector's size instead, which hold the n elements: see Short.
template <class T, class F>
THALWEG_RULE void for_vectors(std::int64_t n, const F& f) {
  std::int64_t i = 0;
  for (; i + kWidth<T> <= n; i += kWidth<T>) f(i);
  if (i < n) f(n - kWidth<T>);
}

// n < one vector: the elements at p, followed by zeros.
template <class E, int W>
struct Short {
  E elements[W] = {};
  Short(const E* p, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) elements[i] = p[i];
  }
  void store(E* p, std::int64_t n) const {
    for (std::int64_t i = 0; i < n; ++i) p[i] = elements[i];
  }
};

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
void max_forward(const T* x, PoolTaps taps, bool relu, T* y, Index* index, std::int64_t n) {
  const auto vector = [&](auto&& tap_at, T* y_out, Index* index_out) __attribute__((always_inline)) {
    Best<T> best{tap_at(taps.data[0].offset), broadcast<Code<T>>(taps.data[0].code)};
    for (std::int64_t t = 1; t < taps.count; ++t) best.meet(tap_at(taps.data[t].offset), taps.data[t].code);
    if (relu) best.relu(static_cast<std::int32_t>(kNoTap<Index>));
    store(y_out, best.value);
    store_codes<T>(index_out, best.code);
  };
  if (n >= kWidth<T>)
    return for_vectors<T>(n, [&](std::int64_t i) {
      vector([&](std::int64_t at) { return load(x + at + i); }, y + i, index + i);
    });
  Short<T, kWidth<T>> values(y, 0);
  Short<Index, kWidth<T>> codes(index, 0);
  vector([&](std::int64_t at) { return load(Short<T, kWidth<T>>(x + at, n).elements); }, values.elements,
         codes.elements);
  values.store(y, n);
  codes.store(index, n);
}

template <class T, class Index>
void max_backward(const T* dy, const Index* index, PoolTaps windows, T* dx, std::int64_t n) {
  const auto vector = [&](auto&& codes_at, auto&& dy_at) __attribute__((always_inline)) {
    Vector<T> sum{};
    for (std::int64_t t = 0; t < windows.count; ++t) {
      const PoolTap& window = windows.data[t];
      const Codes<T> chosen = codes_at(window.index) == broadcast<Code<T>>(window.code);
      sum += (Vector<T>)(chosen & (Codes<T>)dy_at(window.offset));
    }
    return sum;
  };
  if (n >= kWidth<T>)
    return for_vectors<T>(n, [&](std::int64_t i) {
      store(dx + i, vector([&](std::int64_t at) { return load_codes<T>(index + at + i); },
                           [&](std::int64_t at) { return load(dy + at + i); }));
    });
  Short<T, kWidth<T>> sums(dx, 0);
  store(
      sums.elements,
      vector([&](std::int64_t at) { return load_codes<T>(Short<Index, kWidth<T>>(index + at, n).elements); },
             [&](std::int64_t at) { return load(Short<T, kWidth<T>>(dy + at, n).elements); }));
  sums.store(dx, n);
}

template <class T, class Index>
void max_pick(const T* x, const Index* index, PoolTaps taps, T* y, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) y[i] = T(0);
  for (std::int64_t t = 0; t < taps.count; ++t) {
    const T* tap = x + taps.data[t].offset;
    const auto code = static_cast<Index>(taps.data[t].code);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < n; ++i) y[i] = index[i] == code ? tap[i] : y[i];
  }
}

template <class T>
void mean(const T* x, PoolTaps taps, const T* divisor, bool each, T* y, std::int64_t n) {
  const auto vector = [&](auto&& tap_at, auto&& divisor_at) __attribute__((always_inline)) {
    Vector<T> sum{};
    for (std::int64_t t = 0; t < taps.count; ++t) sum += tap_at(taps.data[t].offset);
    return divisor ? sum / (each ? divisor_at() : broadcast(*divisor)) : sum;
  };
  if (n >= kWidth<T>)
    return for_vectors<T>(n, [&](std::int64_t i) {
      store(y + i,
            vector([&](std::int64_t at) { return load(x + at + i); }, [&] { return load(divisor + i); }));
    });
  Short<T, kWidth<T>> means(y, 0);
  store(means.elements, vector([&](std::int64_t at) { return load(Short<T, kWidth<T>>(x + at, n).elements); },
                               [&] { return load(Short<T, kWidth<T>>(divisor, n).elements); }));
  means.store(y, n);
}

template <class T>
void mean_backward(const T* dy, PoolTaps windows, T* dx, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) dx[i] = T(0);
  for (std::int64_t t = 0; t < windows.count; ++t) {
    const T* window = dy + windows.data[t].offset;
    const T divisor = static_cast<T>(windows.data[t].divisor);
#pragma GCC ivdep
    for (std::int64_t i = 0; i < n; ++i) dx[i] += window[i] / divisor;
  }
}

// Columns `first`, first + stride, … of a row belong to one phase, from `place` on.
struct Phase {
  std::int64_t first, place, count;

  Phase(const PoolSpread& s, std::int64_t phase) {
    first = ((phase - s.padding) % s.stride + s.stride) % s.stride;
    place = (first + s.padding) / s.stride;
    const std::int64_t columns = first < s.columns ? (s.columns - first + s.stride - 1) / s.stride : 0;
    count = columns < s.places - place ? columns : s.places - place;
  }
};

template <int kStride, class T>
THALWEG_RULE void take(const T* x, std::int64_t stride, T* out, std::int64_t n) {
#pragma GCC ivdep
  for (std::int64_t i = 0; i < n; ++i) out[i] = x[i * (kStride ? kStride : stride)];
}

template <class T>
void spread(const T* x, const PoolSpread& s, T* out) {
  for (std::int64_t p = 0; p < s.stride; ++p) {
    const Phase phase(s, p);
    for (std::int64_t r = 0; r < s.rows; ++r) {
      const T* from = x + r * s.row + phase.first;
      T* to = out + r * s.spread_row + p * s.phase + phase.place;
      if (s.stride == 1)
        take<1>(from, 1, to, phase.count);
      else if (s.stride == 2)
        take<2>(from, 2, to, phase.count);
      else
        take<0>(from, s.stride, to, phase.count);
    }
  }
}

template <class T>
void gather(const T* from, const PoolSpread& s, T* x) {
  for (std::int64_t r = 0; r < s.rows; ++r) {
    const T* row = from + r * s.spread_row;
    T* to = x + r * s.row;
    if (s.stride == 2) {  // both phases at once: the vectoriser interleaves them
      const std::int64_t p = s.padding;
      const T *even = row + p % 2 * s.phase + p / 2, *odd = row + (p + 1) % 2 * s.phase + (p + 1) / 2;
#pragma GCC ivdep
      for (std::int64_t i = 0; i < s.columns / 2; ++i) to[2 * i] = even[i], to[2 * i + 1] = odd[i];
      if (s.columns % 2) to[s.columns - 1] = even[s.columns / 2];
      continue;
    }
    for (std::int64_t p = 0; p < s.stride; ++p) {
      const Phase phase(s, p);
      const T* places = row + p * s.phase + phase.place;
      for (std::int64_t i = 0; i < phase.count; ++i) to[phase.first + i * s.stride] = places[i];
    }
  }
}

template <class T, class Index>
constexpr MaxPoolLoops<T, Index> kMax{max_forward<T, Index>, max_backward<T, Index>, max_pick<T, Index>};
template <class T>
constexpr PoolLoops<T> kLoops{
    kMax<T, std::uint8_t>, kMax<T, std::int32_t>, mean<T>, mean_backward<T>, spread<T>, gather<T>};

}  // namespace

void fill(PoolKernels& kernels) {
  kernels.f32 = kLoops<float>;
  kernels.f64 = kLoops<double>;
}

}  // namespace thalweg::THALWEG_ISA
