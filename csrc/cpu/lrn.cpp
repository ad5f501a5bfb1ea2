#include "cpu/lrn.h"

#include <cstring>

#include "base/parallel.h"
#include "cpu/isa.h"
#include "cpu/laid.h"
#include "cpu/pool.h"

namespace thalweg::cpu {
namespace {

constexpr std::int64_t kBlock = 1 << 13;  // elements that stay in the first cache, nearly

// A (N, C, H, W) array cut into blocks of rows: the channels of some pixels, or, in planes, some
// positions of all channels.
class Blocks {
 public:
  Blocks(const View& x, const LrnOptions& o) : last_(channels_last(x)), options_(o) {
    samples_ = x.shape[0], channels_ = x.shape[1], positions_ = x.shape[2] * x.shape[3];
    const std::int64_t row = last_ ? channels_ + o.size - 1 : channels_;
    wide_ = std::clamp<std::int64_t>(kBlock / row, last_ ? 1 : 16, 1024);
    width_ = x.shape[3];
  }

  // f(block) for all of them, with make() called once a range.
  template <class Make>
  void run(const Make& make) const {
    const std::int64_t blocks = (positions_ + wide_ - 1) / wide_;
    parallel_for(samples_ * blocks, 1, [&](std::int64_t begin, std::int64_t end) {
      auto work = make();
      for (std::int64_t b = begin; b < end; ++b) {
        const std::int64_t position = b % blocks * wide_;
        work(b / blocks, position, std::min(wide_, positions_ - position));
      }
    });
  }

  std::int64_t pitch(std::int64_t wide) const { return last_ ? channels_ + options_.size - 1 : wide; }
  LrnBlock block(std::int64_t wide) const {
    const std::int64_t n = last_ ? wide * pitch(wide) - (options_.size - 1) : wide * channels_;
    return {n, last_ ? 1 : wide, options_.size, options_.alpha, options_.beta, options_.k};
  }
  std::size_t room() const { return static_cast<std::size_t>(wide_ * (channels_ + options_.size)); }
  std::size_t wide_room() const { return static_cast<std::size_t>(wide_ * (channels_ + 2 * options_.size)); }

  // f(row in the block's buffer, row of v, elements)
  template <class T, class F>
  void for_rows(const View& v, T* buffer, std::int64_t sample, std::int64_t position, std::int64_t wide,
                const F& f) const {
    T* base = v.as<T>() + sample * v.strides[0];
    const std::int64_t rows = last_ ? wide : channels_;
    for (std::int64_t r = 0; r < rows; ++r) {
      const std::int64_t at = last_ ? position + r : position;
      T* row =
          base + at / width_ * v.strides[2] + at % width_ * v.strides[3] + (last_ ? 0 : r * v.strides[1]);
      f(buffer + r * pitch(wide), row, static_cast<std::size_t>(last_ ? channels_ : wide) * sizeof(T));
    }
  }

 private:
  bool last_;
  LrnOptions options_;
  std::int64_t samples_, channels_, positions_, wide_, width_;
};

// Rows in, rows out; what a block does not write stays zero.
template <class T>
struct Buffers {
  std::vector<T> dy, x, squares, ratios, y;

  Buffers(const Blocks& blocks, bool backward)
      : dy(backward ? blocks.room() : 0),
        x(blocks.room()),
        squares(blocks.wide_room()),
        ratios(backward ? blocks.wide_room() : 0),
        y(blocks.room()) {}
};

constexpr auto kCopyIn = [](auto* buffer, const auto* row, std::size_t bytes) {
  std::memcpy(buffer, row, bytes);
};
constexpr auto kCopyOut = [](const auto* buffer, auto* row, std::size_t bytes) {
  std::memcpy(row, buffer, bytes);
};

}  // namespace

void local_response_norm(const LrnOptions& o, const View& x, const View& y) {
  const Blocks blocks(x, o);
  const Laid in(x, channels_last(x));
  with_float_type(x.dtype, [&]<class T>(T) {
    const auto forward = kernels().lrn.loops<T>().forward;
    blocks.run([&] {
      return [&, b = Buffers<T>(blocks, false)](std::int64_t n, std::int64_t position,
                                                std::int64_t wide) mutable {
        const LrnBlock block = blocks.block(wide);
        blocks.for_rows(in.view(), b.x.data(), n, position, wide, kCopyIn);
        std::fill(b.squares.begin(), b.squares.end(), T(0));
        forward(b.x.data(), block, b.squares.data(), b.y.data());
        blocks.for_rows(y, b.y.data(), n, position, wide, kCopyOut);
      };
    });
  });
}

void local_response_norm_backward(const LrnOptions& o, const View& dy, const View& x, const View& dx) {
  const bool last = channels_last(x);
  const Blocks blocks(x, o);
  const Laid in(x, last), gradient(dy, last);
  with_float_type(x.dtype, [&]<class T>(T) {
    const auto backward = kernels().lrn.loops<T>().backward;
    blocks.run([&] {
      return [&, b = Buffers<T>(blocks, true)](std::int64_t n, std::int64_t position,
                                               std::int64_t wide) mutable {
        const LrnBlock block = blocks.block(wide);
        blocks.for_rows(in.view(), b.x.data(), n, position, wide, kCopyIn);
        blocks.for_rows(gradient.view(), b.dy.data(), n, position, wide, kCopyIn);
        std::fill(b.squares.begin(), b.squares.end(), T(0));
        std::fill(b.ratios.begin(), b.ratios.end(), T(0));
        backward(b.dy.data(), b.x.data(), block, b.squares.data(), b.ratios.data(), b.y.data());
        blocks.for_rows(dx, b.y.data(), n, position, wide, kCopyOut);
      };
    });
  });
}

}  // namespace thalweg::cpu
