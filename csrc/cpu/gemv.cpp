#include "cpu/gemv.h"

#include <algorithm>

#include "base/parallel.h"
#include "cpu/gemm_blocking.h"
#include "cpu/gemm_product.h"
#include "cpu/gemm_workspace.h"
#include "cpu/isa.h"

namespace thalweg {
namespace {

constexpr std::int64_t kRunBytes = 4096;        // of one row that is read at a time
constexpr std::int64_t kTaskBytes = 128 << 10;  // of the matrix: a few microseconds
template <class T>
constexpr std::int64_t kRun = kRunBytes / static_cast<std::int64_t>(sizeof(T));

// y = (accumulate ? y : 0) + A x, or the same with x A.
template <class T>
class VectorProduct {
 public:
  VectorProduct(const GemmProblem& p, bool column)
      : problem_(p),
        kernels_(kernels().gemm.family<T>()),
        column_(column),
        length_(column ? p.m : p.n),
        depth_(column ? kInnerDepth : ceil_div(p.k, std::max<std::int64_t>(1, ceil_div(p.k, kDepth<T>)))),
        depths_(std::max<std::int64_t>(1, ceil_div(p.k, std::max<std::int64_t>(1, depth_)))) {}

  void run() {
    thread_local GemmWorkspace workspace;
    workspace.reserve(0, static_cast<std::size_t>(x_elements() + sum_elements()) * sizeof(T), num_threads());
    GemmWorkspace& slots = workspace;
    const std::int64_t batches = problem_.batches(), bytes = length_ * problem_.k * item();
    const auto some = [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(slots);
      for (std::int64_t i = begin; i < end; ++i)
        multiply(product_at<T>(problem_, i, static_cast<const T*>(problem_.bias)),
                 reinterpret_cast<T*>(slot.data()));
    };
    shared_ = batches < num_threads() && bytes > kTaskBytes;
    if (shared_) return some(0, batches);
    parallel_for(batches, std::max<std::int64_t>(1, kTaskBytes / std::max<std::int64_t>(1, bytes)), some);
  }

 private:
  static constexpr std::int64_t item() { return static_cast<std::int64_t>(sizeof(T)); }
  bool contiguous_x() const { return column_ ? problem_.b.row == 1 : problem_.a.col == 1; }
  std::int64_t x_elements() const { return contiguous_x() ? 0 : problem_.k; }
  std::int64_t sum_elements() const { return depths_ > 1 ? depths_ * length_ : 0; }

  void multiply(const Product<T>& p, T* scratch) const {
    const T* x = column_ ? p.b.data : p.a.data;
    if (!contiguous_x()) {
      const std::int64_t step = column_ ? p.b.row : p.a.col;
      for (std::int64_t k = 0; k < p.k; ++k) scratch[k] = x[k * step];
      x = scratch;
    }
    T* const sums = scratch + x_elements();
    const std::int64_t depth = std::max<std::int64_t>(1, std::min(depth_, p.k));
    const std::int64_t rows = piece(depth), pieces = ceil_div(length_, rows);
    // Blocks of K are next to each other, so that a long inner product is several at a time.
    const std::int64_t together =
        std::max<std::int64_t>(1, kTaskBytes / (std::min(rows, length_) * depth * item()));
    parallel_for(pieces * depths_, together, [&](std::int64_t begin, std::int64_t end) {
      if (length_ == 1 && depths_ > 1) return inner_blocks(p, x, begin, end, sums);
      for (std::int64_t task = begin; task < end; ++task) {
        const std::int64_t block = task % depths_, first = task / depths_ * rows;
        const std::int64_t count = std::min(rows, length_ - first);
        T direct[kRun<T>];
        T* const to = depths_ > 1 ? sums + block * length_ + first : direct;
        sum_block(p, x, block, first, count, to);
        if (depths_ == 1) finish(p, first, count, to);
      }
    });
    if (depths_ == 1) return;
    parallel_for(pieces, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t piece = begin; piece < end; ++piece)
        finish(p, piece * rows, std::min(rows, length_ - piece * rows), sums + piece * rows);
    });
  }

  // Elements of the result that a task sums. Where the matrix is contiguous along them, they are a run of
  // memory.
  std::int64_t piece(std::int64_t depth) const {
    const bool run = !column_ || (problem_.a.row == 1 && problem_.a.col != 1);
    const std::int64_t enough =
        run ? ceil_div(length_, shared_ ? 2 * num_threads() : 1) : kTaskBytes / (depth * item());
    return std::clamp<std::int64_t>(round_up(enough, 64 / item()), 64 / item(), kRun<T>);
  }

  // One inner product, many blocks.
  void inner_blocks(const Product<T>& p, const T* x, std::int64_t begin, std::int64_t end, T* sums) const {
    const auto blocks = [&](std::int64_t first, std::int64_t count, std::int64_t depth) {
      if (count > 0)
        kernels_.inner_rows(
            {p.a.at(0, first * depth_), depth_ * p.a.col, p.a.col, x + first * depth_, depth_, depth, count},
            sums + first);
    };
    const std::int64_t whole = std::min(end, p.k / depth_);
    blocks(begin, whole - begin, depth_);
    blocks(std::max(begin, whole), end - std::max(begin, whole), p.k % depth_);
  }

  // Elements first … first + count of one block of K.
  void sum_block(const Product<T>& p, const T* x, std::int64_t block, std::int64_t first, std::int64_t count,
                 T* sums) const {
    const std::int64_t k = block * depth_, depth = std::min(depth_, p.k - k);
    if (!column_) return kernels_.row_chain(p.b.at(k, first), p.b.row, x + k, 1, depth, count, sums);
    if (p.a.row != 1 || p.a.col == 1)
      return kernels_.inner_rows({p.a.at(first, k), p.a.row, p.a.col, x + k, 0, depth, count}, sums);
    alignas(64) T lanes[kInnerLanes][kRun<T>];
    for (std::int64_t lane = 0; lane < kInnerLanes; ++lane)
      kernels_.row_chain(p.a.at(first, k + lane), kInnerLanes * p.a.col, x + k + lane, kInnerLanes,
                         ceil_div(std::max<std::int64_t>(0, depth - lane), kInnerLanes), count, lanes[lane]);
    for (int apart = 1; apart < kInnerLanes; apart *= 2)
      for (int lane = 0; lane < kInnerLanes; lane += 2 * apart)
        for (std::int64_t i = 0; i < count; ++i) lanes[lane][i] += lanes[lane + apart][i];
    std::copy_n(lanes[0], count, sums);
  }

  // C[first : first + count] from the sums of all blocks, of which `sums` are the first block's.
  void finish(const Product<T>& p, std::int64_t first, std::int64_t count, T* sums) const {
    const std::int64_t step = column_ ? p.c.row : p.c.col;
    T* const c = p.c.data + first * step;
    for (std::int64_t i = 0; p.accumulate && i < count; ++i) sums[i] = c[i * step] + sums[i];
    for (std::int64_t block = 1; block < depths_; ++block)
      for (std::int64_t i = 0; i < count; ++i) sums[i] += sums[block * length_ + i];
    for (std::int64_t i = 0; p.bias && i < count; ++i)
      sums[i] += p.bias[column_ ? 0 : (first + i) * problem_.bias_stride];
    if (p.activation != Activation::identity)
      kernels_.finish(sums, count, 1, static_cast<int>(count), nullptr, p.activation);
    for (std::int64_t i = 0; i < count; ++i) c[i * step] = sums[i];
  }

  const GemmProblem& problem_;
  const GemmFamily<T>& kernels_;
  const bool column_;
  const std::int64_t length_;  // of the result
  const std::int64_t depth_, depths_;
  bool shared_ = false;  // the threads share one product, not a stack of them
};

}  // namespace

template <class T>
bool multiply_vector(const GemmProblem& p) {
  const bool column = p.n == 1;
  if (!column && !(p.m == 1 && p.b.col == 1)) return false;
  VectorProduct<T>(p, column).run();
  return true;
}

template bool multiply_vector<float>(const GemmProblem&);
template bool multiply_vector<double>(const GemmProblem&);

}  // namespace thalweg
