// Dropout with the CPU's masks: a thread draws one Philox block and serves its four elements.
#include "cuda/families.h"
#include "cuda/launch.cuh"
#include "cuda/layout.cuh"
#include "rules/philox.h"

namespace thalweg::cuda {
namespace {

constexpr unsigned kThreads = 256;

struct Draws {
  std::int64_t sample_elements, sample_blocks, samples;
  PhiloxKey key;
  std::uint32_t step, module, sample_offset;
};

template <class T>
__global__ void __launch_bounds__(kThreads)
    apply_dropout(Draws draws, Layout<1> layout, DropoutRule<T> rule, const T* x, T* y) {
  const std::int64_t id = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t sample = id / draws.sample_blocks, block = id - sample * draws.sample_blocks;
  if (sample >= draws.samples) return;
  const PhiloxWords w =
      philox({static_cast<std::uint32_t>(block), draws.sample_offset + static_cast<std::uint32_t>(sample),
              draws.module, draws.step},
             draws.key);
  const std::uint32_t words[4] = {w.x0, w.x1, w.x2, w.x3};
  const std::int64_t first = sample * draws.sample_elements + 4 * block;
#pragma unroll
  for (int k = 0; k < 4; ++k)
    if (4 * block + k < draws.sample_elements)
      y[first + k] = rule(x[layout.offsets(first + k).of[0]], words[k]);
}

}  // namespace

void dropout(const View& x, const View& y, const DropoutOptions& options, Stream stream) {
  if (y.elements() == 0) return;
  Layout<1> layout;
  for (int i = 0; i < x.rank; ++i) layout.append(x.shape[i], {x.strides[i]});
  const std::int64_t elements = y.elements() / y.shape[0], blocks = (elements + 3) / 4;
  const Draws draws{
      elements,
      blocks,
      y.shape[0],
      {static_cast<std::uint32_t>(options.seed), static_cast<std::uint32_t>(options.seed >> 32)},
      options.step,
      options.module,
      options.sample_offset};
  with_float_type(y.dtype, [&]<class T>(T) {
    const DropoutRule<T> rule{static_cast<std::uint32_t>(options.p * 0x1p32),
                              static_cast<T>(1.0 / (1.0 - options.p))};
    launch(apply_dropout<T>, blocks_for(y.shape[0] * blocks, kThreads), kThreads, 0, stream, draws, layout,
           rule, x.as<const T>(), y.as<T>());
  });
}

}  // namespace thalweg::cuda
