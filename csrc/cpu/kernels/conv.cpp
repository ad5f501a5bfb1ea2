#include "cpu/kernels/conv.h"

#include <algorithm>
#include <array>
#include <utility>

#include "cpu/kernels/gemm_pack.h"
#include "cpu/kernels/gemm_vector.h"
#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {
namespace {

// As many accumulators as registers allow beside a row of B and one broadcast; see gemm.cpp.
#if defined(__AVX512F__)
constexpr int kTileRows = 14;
#elif defined(__AVX2__)
constexpr int kTileRows = 6;
#else
constexpr int kTileRows = 4;
#endif

// kAlongRows: consecutive rows of A are neighbours in memory, else consecutive k are.
template <class T, int kRows, int kVectors, bool kAlongRows, bool kPartial>
__attribute__((always_inline)) inline void multiply_runs(const ConvTile<T>& t) {
  const Lanes<T> last(t.columns - (kVectors - 1) * kWidth<T>);
  const auto load_row = [&](const T* p, int j) __attribute__((always_inline)) {
    return kPartial && j == kVectors - 1 ? last.load(p + j * kWidth<T>) : load(p + j * kWidth<T>);
  };
  const std::int64_t row_step = kAlongRows ? 1 : t.a_step, k_step = kAlongRows ? t.a_step : 1;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i)
    for (int j = 0; j < kVectors; ++j) __builtin_prefetch(t.c + i * t.c_row + j * kWidth<T>, 1);
  Vector<T> sums[kRows][kVectors] = {};
  if (t.resume) {
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i)
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sums[i][j] = load_row(t.c + i * t.c_row, j);
  }
  for (const ConvRun *run = t.runs, *end = run + t.run_count; run != end; ++run) {
    const T *a = t.a + run->a, *b = t.b + run->b;
    for (std::int64_t k = run->length; k > 0; --k) {
      Vector<T> row[kVectors];
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) row[j] = load_row(b, j);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const Vector<T> x = broadcast(a[i * row_step]);
#pragma GCC unroll 2
        for (int j = 0; j < kVectors; ++j) sums[i][j] = multiply_add<T>(x, row[j], sums[i][j]);
      }
      a += k_step;
      b += t.b_row;
    }
  }
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
    T* c = t.c + i * t.c_row;
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      const Vector<T> sum = t.accumulate ? load_row(c, j) + sums[i][j] : sums[i][j];
      if (kPartial && j == kVectors - 1)
        last.store(c + j * kWidth<T>, sum);
      else
        store(c + j * kWidth<T>, sum);
    }
  }
}

template <class T, int kRows, int kVectors, bool kAlongRows>
void tile(const ConvTile<T>& t) {
  if (Lanes<T>::kFree || t.columns % kWidth<T> != 0)
    multiply_runs<T, kRows, kVectors, kAlongRows, true>(t);
  else
    multiply_runs<T, kRows, kVectors, kAlongRows, false>(t);
}

template <class T, bool kAlongRows, std::size_t... kIndex>
constexpr auto make_tiles(std::index_sequence<kIndex...>) {
  constexpr int kVectors = ConvFamily<T>::kTileVectors;
  return std::array{tile<T, static_cast<int>(kIndex) / kVectors + 1, static_cast<int>(kIndex) % kVectors + 1,
                         kAlongRows>...};
}

template <class T, bool kAlongRows>
constexpr auto kTiles =
    make_tiles<T, kAlongRows>(std::make_index_sequence<kTileRows * ConvFamily<T>::kTileVectors>{});

template <class T, int kPixels>
THALWEG_RULE void channels_of_pixels(const ConvChannels<T>& t, std::int64_t pixel, std::int64_t channel,
                                     const Lanes<T>& some) {
  const T *x = t.x + pixel * t.x_step + channel, *weight = t.weight + channel;
  Vector<T> sums[kPixels] = {};
  for (std::int64_t tap = 0; tap < t.tap_count; ++tap, weight += t.channels) {
    const Vector<T> w = some.load(weight);
#pragma GCC unroll 8
    for (int i = 0; i < kPixels; ++i)
      sums[i] = multiply_add<T>(some.load(x + t.taps[tap] + i * t.x_step), w, sums[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kPixels; ++i) some.store(t.y + (pixel + i) * t.y_step + channel, sums[i]);
}

template <class T>
void channels(const ConvChannels<T>& t) {
  constexpr int kPixels = 4;  // as many chains as hide the latency of one
  for (std::int64_t c = 0; c < t.channels; c += kWidth<T>) {
    const Lanes<T> some(static_cast<int>(std::min<std::int64_t>(kWidth<T>, t.channels - c)));
    std::int64_t p = 0;
    for (; p + kPixels <= t.pixels; p += kPixels) channels_of_pixels<T, kPixels>(t, p, c, some);
    for (; p < t.pixels; ++p) channels_of_pixels<T, 1>(t, p, c, some);
  }
}

template <class T, int kRows>
THALWEG_RULE void rows_of_plane(const ConvPlane<T>& t, std::int64_t row, std::int64_t pixel,
                                const Lanes<T>& some) {
  const T* x = t.x + row * t.x_row + pixel;
  Vector<T> sums[kRows] = {};
  for (std::int64_t tap = 0; tap < t.tap_count; ++tap) {
    const Vector<T> w = broadcast(t.weight[tap]);
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i)
      sums[i] = multiply_add<T>(some.load(x + t.taps[tap] + i * t.x_row), w, sums[i]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) some.store(t.y + (row + i) * t.y_row + pixel, sums[i]);
}

template <class T>
void plane(const ConvPlane<T>& t) {
  constexpr int kRows = 7;  // planes of 7, 14, 28, 56 and 112 rows are whole ones
  for (std::int64_t j = 0; j < t.pixels; j += kWidth<T>) {
    const Lanes<T> some(static_cast<int>(std::min<std::int64_t>(kWidth<T>, t.pixels - j)));
    std::int64_t i = 0;
    for (; i + kRows <= t.rows; i += kRows) rows_of_plane<T, kRows>(t, i, j, some);
    for (; i < t.rows; ++i) rows_of_plane<T, 1>(t, i, j, some);
  }
}

template <class T, int kTaps>
THALWEG_RULE void sums_of_taps(const ConvChannelSums<T>& t, std::int64_t tap, std::int64_t channel,
                               const Lanes<T>& some) {
  Vector<T> sums[kTaps] = {};
  for (const ConvRun *row = t.rows, *end = row + t.row_count; row != end; ++row) {
    const T *x = t.x + row->a + channel, *dy = t.dy + row->b + channel;
    for (std::int64_t p = row->length; p > 0; --p, x += t.x_step, dy += t.dy_step) {
      const Vector<T> d = some.load(dy);
#pragma GCC unroll 8
      for (int i = 0; i < kTaps; ++i) sums[i] = multiply_add<T>(some.load(x + t.taps[tap + i]), d, sums[i]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kTaps; ++i) {
    T* to = t.sums + (tap + i) * t.sums_row + channel;
    some.store(to, t.accumulate ? some.load(to) + sums[i] : sums[i]);
  }
}

template <class T>
void channel_sums(const ConvChannelSums<T>& t) {
  constexpr int kTaps = 5;  // 9 and 25 taps are 5 + 4 and 5 * 5
  for (std::int64_t c = 0; c < t.channels; c += kWidth<T>) {
    const Lanes<T> some(static_cast<int>(std::min<std::int64_t>(kWidth<T>, t.channels - c)));
    std::int64_t tap = 0;
    for (; tap + kTaps <= t.tap_count; tap += kTaps) sums_of_taps<T, kTaps>(t, tap, c, some);
    for (; tap + 4 <= t.tap_count; tap += 4) sums_of_taps<T, 4>(t, tap, c, some);
    for (; tap < t.tap_count; ++tap) sums_of_taps<T, 1>(t, tap, c, some);
  }
}

// A square of vectors, transposed in registers: to[i * to_row + j] = from[i + j * from_col].
template <class T>
void copy_square(T* to, std::int64_t to_row, const T* from, std::int64_t from_col, int rows, int columns) {
  const Lanes<T> down(rows), across(columns);
  Vector<T> square[kWidth<T>];
#pragma GCC unroll 16
  for (int j = 0; j < kWidth<T>; ++j) {
    if (j >= columns)
      square[j] = Vector<T>{};
    else if (Lanes<T>::kFree || rows < kWidth<T>)
      square[j] = down.load(from + j * from_col);
    else
      square[j] = load(from + j * from_col);
  }
  transpose<T>(square);
#pragma GCC unroll 16
  for (int i = 0; i < kWidth<T>; ++i) {
    if (i >= rows) break;
    if (Lanes<T>::kFree || columns < kWidth<T>)
      across.store(to + i * to_row, square[i]);
    else
      store(to + i * to_row, square[i]);
  }
}

template <class T>
void copy_row(T* to, const T* from, std::int64_t count) {
  std::int64_t i = 0;
  for (; i + kWidth<T> <= count; i += kWidth<T>) store(to + i, load(from + i));
  if (i == count) return;
  const Lanes<T> rest(static_cast<int>(count - i));
  rest.store(to + i, rest.load(from + i));
}

template <class T>
void copy(T* to, std::int64_t to_row, std::int64_t to_col, const T* from, std::int64_t from_row,
          std::int64_t from_col, std::int64_t rows, std::int64_t columns) {
  if (to_col == 1 && from_col == 1) {
    for (std::int64_t i = 0; i < rows; ++i) copy_row(to + i * to_row, from + i * from_row, columns);
  } else if (to_col == 1 && from_row == 1 && rows > 1 && columns > 1) {
    for (std::int64_t i = 0; i < rows; i += kWidth<T>)
      for (std::int64_t j = 0; j < columns; j += kWidth<T>)
        copy_square(to + i * to_row + j, to_row, from + i + j * from_col, from_col,
                    static_cast<int>(std::min<std::int64_t>(kWidth<T>, rows - i)),
                    static_cast<int>(std::min<std::int64_t>(kWidth<T>, columns - j)));
  } else {
    for (std::int64_t i = 0; i < rows; ++i)
      for (std::int64_t j = 0; j < columns; ++j)
        to[i * to_row + j * to_col] = from[i * from_row + j * from_col];
  }
}

template <class T>
void fill_family(ConvFamily<T>& family) {
  family.vector = kWidth<T>;
  family.tile_rows = kTileRows;
  family.tiles = kTiles<T, false>.data();
  family.column_tiles = kTiles<T, true>.data();
  family.channels = channels<T>;
  family.plane = plane<T>;
  family.channel_sums = channel_sums<T>;
  family.copy = copy<T>;
}

}  // namespace

void fill(ConvKernels& kernels) {
  fill_family(kernels.f32);
  fill_family(kernels.f64);
}

}  // namespace thalweg::THALWEG_ISA
