#include "cpu/elementwise.h"

#include <algorithm>
#include <utility>

#include "base/parallel.h"
#include "cpu/isa.h"

namespace thalweg::cpu {
namespace {

constexpr std::int64_t kGrainBytes = 64 << 10;  // per range of a thread
constexpr std::int64_t kBuffer = 512;           // elements gathered at a time: stays in L1
constexpr std::int64_t kShortRow = 64;          // rows below this are gathered together

// The same iteration over N operands, the output last, with as few dimensions as their layouts
// allow; the last dimension is innermost.
template <class T, int N>
struct Nest {
  int rank = 0;
  std::int64_t elements = 1;
  std::int64_t shape[kMaxRank];
  std::int64_t strides[N][kMaxRank];
  T* data[N];

  std::int64_t row() const { return rank ? shape[rank - 1] : 1; }
  std::int64_t row_stride(int operand) const { return rank ? strides[operand][rank - 1] : 1; }

  // Consecutive elements of the iteration lie side by side.
  bool dense(int operand) const {
    std::int64_t expected = 1;
    for (int d = rank - 1; d >= 0; expected *= shape[d--])
      if (strides[operand][d] != expected) return false;
    return true;
  }

  // Element `i` (in iteration order) of an operand.
  T* at(int operand, std::int64_t i) const {
    std::int64_t offset = 0;
    for (int d = rank - 1; d >= 0 && i; --d) {
      offset += i % shape[d] * strides[operand][d];
      i /= shape[d];
    }
    return data[operand] + offset;
  }
};

template <class T, int N>
void add_dimensions(Nest<T, N>& nest, const View (&views)[N]) {
  const View& y = views[N - 1];
  for (int k = 0; k < N; ++k) nest.data[k] = views[k].template as<T>();
  for (int i = 0; i < y.rank; ++i) {
    nest.elements *= y.shape[i];
    if (y.shape[i] == 1) continue;
    const int d = nest.rank++;
    nest.shape[d] = y.shape[i];
    for (int k = 0; k < N; ++k) {
      const int axis = i - (y.rank - views[k].rank);
      nest.strides[k][d] = axis < 0 || views[k].shape[axis] == 1 ? 0 : views[k].strides[axis];
    }
  }
}

// Along the output's memory: strides positive and, from the outermost dimension inwards, falling.
template <class T, int N>
void follow_output(Nest<T, N>& nest) {
  constexpr int y = N - 1;
  for (int d = 0; d < nest.rank; ++d) {
    if (nest.strides[y][d] < 0)
      for (int k = 0; k < N; ++k) {
        nest.data[k] += (nest.shape[d] - 1) * nest.strides[k][d];
        nest.strides[k][d] = -nest.strides[k][d];
      }
    for (int e = d; e > 0 && nest.strides[y][e - 1] < nest.strides[y][e]; --e) {
      std::swap(nest.shape[e - 1], nest.shape[e]);
      for (int k = 0; k < N; ++k) std::swap(nest.strides[k][e - 1], nest.strides[k][e]);
    }
  }
}

template <class T, int N>
void merge_dimensions(Nest<T, N>& nest) {
  int last = 0;
  for (int d = 1; d < nest.rank; ++d) {
    bool joined = true;
    for (int k = 0; k < N; ++k)
      joined = joined && nest.strides[k][last] == nest.strides[k][d] * nest.shape[d];
    if (!joined) ++last;
    nest.shape[last] = joined ? nest.shape[last] * nest.shape[d] : nest.shape[d];
    for (int k = 0; k < N; ++k) nest.strides[k][last] = nest.strides[k][d];
  }
  nest.rank = std::min(nest.rank, last + 1);
}

// One operand's rows in iteration order.
template <class T, int N>
class Rows {
 public:
  Rows(const Nest<T, N>& nest, int operand, std::int64_t element)
      : nest_(nest), strides_(nest.strides[operand]), start_(nest.data[operand]) {
    std::int64_t row = element / nest.row();
    for (int d = nest.rank - 2; d >= 0; --d) {
      index_[d] = row % nest.shape[d];
      start_ += index_[d] * strides_[d];
      row /= nest.shape[d];
    }
  }

  T* start() const { return start_; }

  void next() {
    for (int d = nest_.rank - 2; d >= 0; --d) {
      start_ += strides_[d];
      if (++index_[d] < nest_.shape[d]) return;
      start_ -= strides_[d] * nest_.shape[d];
      index_[d] = 0;
    }
  }

 private:
  const Nest<T, N>& nest_;
  const std::int64_t* strides_;
  T* start_;
  std::int64_t index_[kMaxRank];
};

// Copies `n` elements of an operand, from element `i` on, to or from a buffer.
template <bool kToBuffer, class T, int N>
void transfer(const Nest<T, N>& nest, int operand, std::int64_t i, std::int64_t n, T* buffer) {
  const std::int64_t row = nest.row(), stride = nest.row_stride(operand);
  std::int64_t column = i % row;
  for (Rows<T, N> rows(nest, operand, i); n > 0; rows.next()) {
    const std::int64_t count = std::min(n, row - column);
    T* const element = rows.start() + column * stride;
    for (std::int64_t j = 0; j < count; ++j)
      kToBuffer ? void(buffer[j] = element[j * stride]) : void(element[j * stride] = buffer[j]);
    buffer += count, n -= count, column = 0;
  }
}

// Elements [begin, end) of the iteration. kernel(pointers, n) sees unit steps: whatever lies
// otherwise goes through buffers.
template <class T, int N, class Kernel>
void run_range(const Nest<T, N>& nest, std::int64_t begin, std::int64_t end, const Kernel& kernel) {
  constexpr int y = N - 1;
  alignas(64) T buffers[N][kBuffer];
  const std::int64_t row = nest.row();
  const bool whole_rows = row >= kShortRow || nest.rank <= 1;
  bool direct[N], all_direct = true;
  const T* repeated[N] = {};  // the element that a buffer is full of
  for (int k = 0; k < N; ++k) {
    direct[k] = nest.dense(k) || (whole_rows && nest.row_stride(k) == 1);
    all_direct = all_direct && direct[k];
  }
  for (std::int64_t i = begin; i < end;) {
    std::int64_t n = whole_rows ? std::min(end - i, row - i % row) : end - i;
    if (!all_direct) n = std::min(n, kBuffer);
    T* pointers[N];
    for (int k = 0; k < N; ++k) {
      pointers[k] = direct[k] ? nest.at(k, i) : buffers[k];
      if (direct[k] || k == y) continue;
      if (whole_rows && nest.row_stride(k) == 0) {
        const T* const element = nest.at(k, i);
        if (element != repeated[k]) std::fill_n(buffers[k], kBuffer, *element);
        repeated[k] = element;
      } else {
        transfer<true>(nest, k, i, n, buffers[k]);
      }
    }
    kernel(pointers, n);
    if (!direct[y]) transfer<false>(nest, y, i, n, buffers[y]);
    i += n;
  }
}

template <class T, int N, class Kernel>
void run(const View (&views)[N], const Kernel& kernel) {
  Nest<T, N> nest;
  add_dimensions(nest, views);
  if (nest.elements == 0) return;
  follow_output(nest);
  merge_dimensions(nest);
  parallel_for(nest.elements, kGrainBytes / static_cast<std::int64_t>(sizeof(T)),
               [&](std::int64_t begin, std::int64_t end) { run_range(nest, begin, end, kernel); });
}

template <class T>
const ElementwiseLoops<T>& loops() {
  if constexpr (sizeof(T) == 4)
    return kernels().elementwise.f32;
  else
    return kernels().elementwise.f64;
}

template <class T>
void run_binary(typename ElementwiseLoops<T>::Binary loop, double parameter, const View& a, const View& b,
                const View& y) {
  run<T>({a, b, y}, [=](T* const* p, std::int64_t n) { loop(p[0], p[1], p[2], n, parameter); });
}

// A number as an array of rank 0 that lies in `storage`.
template <class T>
View as_view(const Operand& operand, T& storage) {
  if (!operand.is_number) return operand.view;
  storage = static_cast<T>(operand.number);
  View view;
  view.data = &storage;
  view.dtype = dtype_of<T>;
  return view;
}

}  // namespace

void unary(int rule, double parameter, const View& x, const View& y) {
  with_float_type(y.dtype, [&]<class T>(T) {
    const auto loop = loops<T>().unary[rule];
    run<T>({x, y}, [=](T* const* p, std::int64_t n) { loop(p[0], p[1], n, parameter); });
  });
}

void copy(const View& x, const View& y) { unary(UnaryRules::index_of<Copy>(), 0.0, x, y); }

void binary(int rule, const Operand& a, const Operand& b, const View& y) {
  with_float_type(y.dtype, [&]<class T>(T) {
    T a_storage, b_storage;
    run_binary<T>(loops<T>().binary[rule], 0.0, as_view(a, a_storage), as_view(b, b_storage), y);
  });
}

void gradient(int rule, double parameter, const View& dy, const View& saved, const View& dx) {
  with_float_type(dx.dtype,
                  [&]<class T>(T) { run_binary<T>(loops<T>().gradient[rule], parameter, dy, saved, dx); });
}

}  // namespace thalweg::cpu
