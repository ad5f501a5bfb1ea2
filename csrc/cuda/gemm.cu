// Batched matrix products C = activation(C? + A B + bias), any strides: A (M, K), B (K, N), C (M, N).
//
// A thread block computes a square tile of C. Panels of A and B pass through shared memory, k-major and
// two deep: the next ones are copied while the present ones are multiplied. K falls into the same
// blocks as in cpu/gemm.cpp, each a chain of multiply-adds from zero, so the FMA kernel gives the bits
// of the CPU's FMA instruction sets.
#include <type_traits>

#include "cuda/activation.cuh"
#include "cuda/families.h"
#include "cuda/launch.cuh"
#include "cuda/layout.cuh"

namespace thalweg::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kPanelDepth = 16;  // of K in shared memory

template <class T>
struct Product {
  std::int64_t m, n, k, depth;  // depth: of K in a block
  std::int64_t row_tiles, column_tiles;
  Layout<3> batch;  // of A, B, C
  const T *a, *b, *bias;
  T* c;
  std::int64_t a_row, a_col, b_row, b_col, c_row, c_col, bias_stride;
  Activation activation;
  bool accumulate;
};

// The part of a product that one thread block computes.
template <class T>
struct Tile {
  std::int64_t row, column;
  const T *a, *b;  // at row, at column
  T* c;            // at (0, 0)

  template <int kTile>
  static __device__ Tile of_block(const Product<T>& p) {
    const std::int64_t tiles = p.row_tiles * p.column_tiles, id = blockIdx.x % tiles;
    const auto at = p.batch.offsets(blockIdx.x / tiles);
    const std::int64_t row = id / p.column_tiles * kTile, column = id % p.column_tiles * kTile;
    return {row, column, p.a + at.of[0] + row * p.a_row, p.b + at.of[1] + column * p.b_col, p.c + at.of[2]};
  }
};

// panel[k][i] = source[i * along + k * deep] for i < rows and k < depth, 0 beyond. Neighbouring threads
// read neighbours in memory, whichever way those lie; each walks along one axis.
template <class T, int kTile, int kWidth>
__device__ void load_panel(T (&panel)[kPanelDepth][kWidth], const T* source, std::int64_t along,
                           std::int64_t deep, std::int64_t rows, std::int64_t depth) {
  const bool k_first = deep == 1;
  const int thread = static_cast<int>(threadIdx.x);
  int i = k_first ? thread / kPanelDepth : thread % kTile;
  int k = k_first ? thread % kPanelDepth : thread / kTile;
  const int i_step = k_first ? kThreads / kPanelDepth : 0, k_step = k_first ? 0 : kThreads / kTile;
  const T* from = source + i * along + k * deep;
  const std::int64_t step = i_step * along + k_step * deep;
  constexpr int kElements = kTile * kPanelDepth / kThreads;
#pragma unroll 1
  for (int e = 0; e < kElements; ++e) {
    const bool inside = i < rows && k < depth;
    copy_async<sizeof(T)>(&panel[k][i], inside ? from : source, inside ? static_cast<int>(sizeof(T)) : 0);
    i += i_step, k += k_step, from += step;
  }
}

// Calls multiply(panel of A, panel of B, depth) for the panels of k = begin … end - 1 in order.
template <class T, int kTile, int kWidth, class Multiply>
__device__ void for_each_panel(const Product<T>& p, const Tile<T>& tile, T (&a)[2][kPanelDepth][kWidth],
                               T (&b)[2][kPanelDepth][kWidth], std::int64_t begin, std::int64_t end,
                               const Multiply& multiply) {
  const auto load = [&](std::int64_t k, int buffer) {
    if (k < end) {
      load_panel<T, kTile>(a[buffer], tile.a + k * p.a_col, p.a_row, p.a_col, p.m - tile.row, end - k);
      load_panel<T, kTile>(b[buffer], tile.b + k * p.b_row, p.b_col, p.b_row, p.n - tile.column, end - k);
    }
    commit_copies();
  };
  load(begin, 0);
  int buffer = 0;
#pragma unroll 1
  for (std::int64_t k = begin; k < end; k += kPanelDepth, buffer ^= 1) {
    load(k + kPanelDepth, buffer ^ 1);
    wait_copies<1>();
    barrier();
    multiply(a[buffer], b[buffer], end - k < kPanelDepth ? static_cast<int>(end - k) : kPanelDepth);
    barrier();
  }
}

// Adds the sum of a block of K to C (i, j); `row` points to C (i, 0).
template <class T>
__device__ void store(const Product<T>& p, T* row, std::int64_t i, std::int64_t j, T sum, bool first,
                      bool last) {
  if (i >= p.m || j >= p.n) return;
  T& c = row[j * p.c_col];
  if (p.accumulate || !first) sum = c + sum;
  if (last && p.bias) sum = sum + p.bias[j * p.bias_stride];
  c = sum;
}

// Activates C (i, j), which this thread has stored. Why not in store(): that is unrolled over all of a
// thread's elements, and seven activations each take the compiler minutes. Not inlined: it costs the
// loops before it registers.
template <class T>
__device__ __noinline__ void activate_stored(const Product<T>& p, const Tile<T>& tile, std::int64_t i,
                                             std::int64_t j) {
  if (i >= p.m || j >= p.n) return;
  T& c = tile.c[i * p.c_row + j * p.c_col];
  c = activate(p.activation, c);
}

// --- multiply-adds ----------------------------------------------------------------------------

template <class T>
struct alignas(16) Pack {  // one 16-byte load from shared memory
  static constexpr int kSize = 16 / sizeof(T);
  T values[kSize];
};

// A thread holds kTile/16 squared elements of C, in packs of neighbours: pack i of its rows starts at
// tile row (16 i + threadIdx.x / 16) * Pack::kSize, columns alike.
template <class T, int kTile>
struct Registers {
  static constexpr int kSide = kTile / 16, kPack = Pack<T>::kSize, kPacks = kSide / kPack;
  T sums[kSide][kSide];

  static __device__ int position(unsigned thread, int i) {
    return (i / kPack * 16 + static_cast<int>(thread)) * kPack + i % kPack;
  }
  static __device__ void load(T (&values)[kSide], const T* panel_row, unsigned thread) {
#pragma unroll
    for (int i = 0; i < kPacks; ++i) {
      const auto pack = *reinterpret_cast<const Pack<T>*>(panel_row + position(thread, i * kPack));
#pragma unroll
      for (int k = 0; k < kPack; ++k) values[i * kPack + k] = pack.values[k];
    }
  }
};

template <class T, int kTile>
__global__ void __launch_bounds__(kThreads) multiply_fma(__grid_constant__ Argument<Product<T>> p) {
  using R = Registers<T, kTile>;
  constexpr int kPad = R::kPack;
  THALWEG_SHARED(T, a, [2][kPanelDepth][kTile + kPad]);
  THALWEG_SHARED(T, b, [2][kPanelDepth][kTile + kPad]);
  const Tile<T> tile = Tile<T>::template of_block<kTile>(p);
  const unsigned row_thread = threadIdx.x / 16, column_thread = threadIdx.x % 16;
  std::int64_t begin = 0;
  do {
    const std::int64_t end = begin + p.depth < p.k ? begin + p.depth : p.k;
    R registers = {};
    for_each_panel<T, kTile>(p, tile, a, b, begin, end, [&](const auto& pa, const auto& pb, int depth) {
#pragma unroll 1
      for (int k = 0; k < depth; ++k) {  // not into the zeros beyond: -0 plus those is 0
        T x[R::kSide], y[R::kSide];
        R::load(x, pa[k], row_thread);
        R::load(y, pb[k], column_thread);
#pragma unroll
        for (int i = 0; i < R::kSide; ++i)
#pragma unroll
          for (int j = 0; j < R::kSide; ++j)
            registers.sums[i][j] = multiply_add(x[i], y[j], registers.sums[i][j]);
      }
    });
    const bool first = begin == 0, last = end == p.k;
#pragma unroll
    for (int i = 0; i < R::kSide; ++i) {
      const std::int64_t row = tile.row + R::position(row_thread, i);
      T* c = tile.c + row * p.c_row;
#pragma unroll
      for (int j = 0; j < R::kSide; ++j)
        store(p, c, row, tile.column + R::position(column_thread, j), registers.sums[i][j], first, last);
    }
    begin = end;
  } while (begin < p.k);
  if (p.activation == Activation::identity) return;
#pragma unroll 1
  for (int e = 0; e < R::kSide * R::kSide; ++e)
    activate_stored(p, tile, tile.row + R::position(row_thread, e / R::kSide),
                    tile.column + R::position(column_thread, e % R::kSide));
}

// --- matrix instructions ----------------------------------------------------------------------

constexpr int kMmaTile = 128, kMmaPad = 8;  // the padding spreads a fragment's loads over all banks
constexpr int kWarpRows = 64, kWarpColumns = 32, kRowFragments = kWarpRows / 16,
              kColumnFragments = kWarpColumns / 8;
using MmaPanel = float[kPanelDepth][kMmaTile + kMmaPad];

// Fragments of one mma of depth kDepth from k-major panels: a(i, k) and b(k, j) around the lane's place.
struct Bf16 {  // operands rounded to bf16, one product
  static constexpr int kDepth = 16;
  static __device__ std::uint32_t pair(const MmaPanel& panel, int k, int i) {
    return static_cast<std::uint32_t>(to_bf16(panel[k][i])) |
           static_cast<std::uint32_t>(to_bf16(panel[k + 1][i])) << 16;
  }
  struct A {
    std::uint32_t values[4];
    __device__ A(const MmaPanel& panel, int k, int row, int group, int place)
        : values{pair(panel, k + place * 2, row + group), pair(panel, k + place * 2, row + group + 8),
                 pair(panel, k + place * 2 + 8, row + group),
                 pair(panel, k + place * 2 + 8, row + group + 8)} {}
  };
  struct B {
    std::uint32_t values[2];
    __device__ B(const MmaPanel& panel, int k, int column, int group, int place)
        : values{pair(panel, k + place * 2, column + group), pair(panel, k + place * 2 + 8, column + group)} {
    }
  };
  static __device__ void multiply(float (&d)[4], const A& a, const B& b) { mma_bf16(d, a.values, b.values); }
};

// x = high + low, both tf32: high high + high low + low high has float32's accuracy but for the low low
// part, 2^-22 of the product (Ootomo & Yokota 2022).
struct Tf32x3 {
  static constexpr int kDepth = 8;
  static __device__ void split(float x, std::uint32_t& high, std::uint32_t& low) {
    high = to_tf32(x);
    low = to_tf32(x - __builtin_bit_cast(float, high));
  }
  struct A {
    std::uint32_t high[4], low[4];
    __device__ A(const MmaPanel& panel, int k, int row, int group, int place) {
#pragma unroll
      for (int i = 0; i < 4; ++i)
        split(panel[k + place + i / 2 * 4][row + group + i % 2 * 8], high[i], low[i]);
    }
  };
  struct B {
    std::uint32_t high[2], low[2];
    __device__ B(const MmaPanel& panel, int k, int column, int group, int place) {
#pragma unroll
      for (int i = 0; i < 2; ++i) split(panel[k + place + i * 4][column + group], high[i], low[i]);
    }
  };
  static __device__ void multiply(float (&d)[4], const A& a, const B& b) {  // smallest first
    mma_tf32(d, a.low, b.high);
    mma_tf32(d, a.high, b.low);
    mma_tf32(d, a.high, b.high);
  }
};

// Tensor cores truncate their sums, so they only sum a panel; the panels are summed in registers.
template <class Scheme>
__device__ void multiply_panel(float (&sums)[kRowFragments][kColumnFragments][4], const MmaPanel& a,
                               const MmaPanel& b, int row, int column) {
  const int group = static_cast<int>(lane_index() / 4), place = static_cast<int>(lane_index() % 4);
#pragma unroll
  for (int i = 0; i < kRowFragments; ++i) {
    float panel_sums[kColumnFragments][4] = {};
#pragma unroll
    for (int k = 0; k < kPanelDepth; k += Scheme::kDepth) {
      const typename Scheme::A x(a, k, row + i * 16, group, place);
#pragma unroll
      for (int j = 0; j < kColumnFragments; ++j)
        Scheme::multiply(panel_sums[j], x, typename Scheme::B(b, k, column + j * 8, group, place));
    }
#pragma unroll
    for (int j = 0; j < kColumnFragments; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] += panel_sums[j][e];
  }
}

template <class Scheme>
__global__ void __launch_bounds__(kThreads, 1) multiply_mma(__grid_constant__ Argument<Product<float>> p) {
  THALWEG_SHARED(float, a, [2][kPanelDepth][kMmaTile + kMmaPad]);
  THALWEG_SHARED(float, b, [2][kPanelDepth][kMmaTile + kMmaPad]);
  const auto tile = Tile<float>::of_block<kMmaTile>(p);
  const int warp = static_cast<int>(threadIdx.x / kWarpLanes);
  const int row = warp / 4 * kWarpRows, column = warp % 4 * kWarpColumns;
  float sums[kRowFragments][kColumnFragments][4] = {};
  for_each_panel<float, kMmaTile>(p, tile, a, b, 0, p.k, [&](const auto& pa, const auto& pb, int) {
    multiply_panel<Scheme>(sums, pa, pb, row, column);
  });
  const auto row_of = [&](int i, int e) {
    return tile.row + row + i * 16 + static_cast<int>(lane_index() / 4) + e % 4 / 2 * 8;
  };
  const auto column_of = [&](int j, int e) {
    return tile.column + column + j * 8 + static_cast<int>(lane_index() % 4) * 2 + e % 2;
  };
#pragma unroll
  for (int i = 0; i < kRowFragments; ++i)
#pragma unroll
    for (int j = 0; j < kColumnFragments; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e)
        store(p, tile.c + row_of(i, e) * p.c_row, row_of(i, e), column_of(j, e), sums[i][j][e], true, true);
  if (p.activation == Activation::identity) return;
#pragma unroll 1
  for (int n = 0; n < kRowFragments * kColumnFragments * 4; ++n)
    activate_stored(p, tile, row_of(n / (4 * kColumnFragments), n), column_of(n / 4 % kColumnFragments, n));
}

// --- launches ---------------------------------------------------------------------------------

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <class T>
Product<T> make_product(const GemmProblem& g) {
  Product<T> p{};
  p.m = g.m, p.n = g.n, p.k = g.k;
  // As in cpu/gemm.cpp, whose bits depend on it.
  constexpr std::int64_t kDepth = 1536 / static_cast<std::int64_t>(sizeof(T));
  p.depth = ceil_div(g.k, ceil_div(g.k, kDepth) > 1 ? ceil_div(g.k, kDepth) : 1);
  for (int i = 0; i < g.batch_rank; ++i)
    p.batch.append(g.batch[i], {g.a.batch[i], g.b.batch[i], g.c.batch[i]});
  p.a = static_cast<const T*>(g.a.data), p.a_row = g.a.row, p.a_col = g.a.col;
  p.b = static_cast<const T*>(g.b.data), p.b_row = g.b.row, p.b_col = g.b.col;
  p.c = static_cast<T*>(g.c.data), p.c_row = g.c.row, p.c_col = g.c.col;
  p.bias = static_cast<const T*>(g.bias), p.bias_stride = g.bias_stride;
  p.activation = g.activation;
  p.accumulate = g.accumulate;
  return p;
}

template <class T>
void launch_product(void (*kernel)(Argument<Product<T>>), Product<T> p, int tile, Stream stream) {
  p.row_tiles = ceil_div(p.m, tile);
  p.column_tiles = ceil_div(p.n, tile);
  launch(kernel, blocks_for(p.row_tiles * p.column_tiles * p.batch.elements(), 1), kThreads, 0, stream, p);
}

// Large tiles do more arithmetic per byte; small ones fill the chip when there are few.
template <class T>
void launch_fma(const Product<T>& p, Stream stream) {
  constexpr std::int64_t kEnoughTiles = 256;
  if constexpr (sizeof(T) == 4)
    if (ceil_div(p.m, 128) * ceil_div(p.n, 128) * p.batch.elements() >= kEnoughTiles)
      return launch_product<T>(multiply_fma<T, 128>, p, 128, stream);
  launch_product<T>(multiply_fma<T, 64>, p, 64, stream);
}

}  // namespace

void gemm(const GemmProblem& problem, GemmScheme scheme, Stream stream) {
  if (problem.m == 0 || problem.n == 0 || problem.batches() == 0) return;
  if (problem.dtype == DType::f64) return launch_fma(make_product<double>(problem), stream);
  const auto p = make_product<float>(problem);
  switch (scheme) {
    case GemmScheme::fma:
      return launch_fma(p, stream);
    case GemmScheme::tf32x3:
      return launch_product<float>(multiply_mma<Tf32x3>, p, kMmaTile, stream);
    case GemmScheme::bf16:
      return launch_product<float>(multiply_mma<Bf16>, p, kMmaTile, stream);
  }
}

}  // namespace thalweg::cuda
