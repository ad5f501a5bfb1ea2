#include "cpu/dropout.h"

#include <algorithm>

#include "base/parallel.h"
#include "cpu/elementwise.h"
#include "cpu/isa.h"

namespace thalweg::cpu {
namespace {

constexpr std::int64_t kBlocks = 128;  // counters at a time: their words stay in L1
constexpr std::int64_t kGrain = 4096;  // blocks per range of a thread

// Blocks are numbered through all samples; a sample's last one may be partly used.
template <class T>
struct Masking {
  const T* x;
  T* y;
  std::int64_t sample_elements, sample_blocks;
  DropoutOptions options;

  void run(std::int64_t begin, std::int64_t end) const {
    alignas(64) std::uint32_t words[4 * kBlocks];
    for (; begin < end; begin += kBlocks) {
      const std::int64_t n = std::min(kBlocks, end - begin);
      draw(begin, n, words);
      for (std::int64_t j = 0; j < n;) j += apply(begin + j, n - j, words + 4 * j);
    }
  }

  void draw(std::int64_t first, std::int64_t n, std::uint32_t* words) const {
    std::uint32_t block[kBlocks], sample[kBlocks];
    std::int64_t row = first / sample_blocks, column = first % sample_blocks;
    for (std::int64_t j = 0; j < n; ++j) {
      block[j] = static_cast<std::uint32_t>(column);
      sample[j] = options.sample_offset + static_cast<std::uint32_t>(row);
      if (++column == sample_blocks) column = 0, ++row;
    }
    const PhiloxKey key{static_cast<std::uint32_t>(options.seed),
                        static_cast<std::uint32_t>(options.seed >> 32)};
    kernels().dropout.words(key, options.module, options.step, block, sample, n, words);
  }

  // As many of the n blocks from `first` on as belong to one sample; returns how many.
  std::int64_t apply(std::int64_t first, std::int64_t n, const std::uint32_t* words) const {
    const std::int64_t row = first / sample_blocks, column = first % sample_blocks;
    const std::int64_t blocks = std::min(n, sample_blocks - column);
    const std::int64_t elements = std::min(4 * blocks, sample_elements - 4 * column);
    const std::int64_t at = row * sample_elements + 4 * column;
    const auto threshold = static_cast<std::uint32_t>(options.p * 0x1p32);
    const T scale = static_cast<T>(1.0 / (1.0 - options.p));
    if constexpr (sizeof(T) == 4)
      kernels().dropout.apply_f32(x + at, words, y + at, elements, threshold, scale);
    else
      kernels().dropout.apply_f64(x + at, words, y + at, elements, threshold, scale);
    return blocks;
  }
};

}  // namespace

void dropout(const View& x, const View& y, const DropoutOptions& options) {
  if (y.elements() == 0) return;
  const bool in_place = !x.contiguous();
  if (in_place) copy(x, y);
  with_float_type(y.dtype, [&]<class T>(T) {
    const std::int64_t elements = y.elements() / y.shape[0], blocks = (elements + 3) / 4;
    const Masking<T> masking{in_place ? y.as<T>() : x.as<T>(), y.as<T>(), elements, blocks, options};
    parallel_for(y.shape[0] * blocks, kGrain,
                 [&](std::int64_t begin, std::int64_t end) { masking.run(begin, end); });
  });
}

}  // namespace thalweg::cpu
