// 3 x 3 and 5 x 5 convolutions at step 1 with a quarter or a third of the products, where "high" precision
// is enough: tiles of results by Winograd's minimal filtering (kernels/conv_winograd.h). A transform gives 36
// matrices (tiles, channels); each is multiplied by its matrix of weights.
#include <algorithm>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_winograd.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

using namespace winograd;

// Of a block's transformed tiles and results: they stay in L2, unless the weights are larger and would
// be read from memory for each of many blocks.
constexpr double kLeastBytes = 768 << 10, kMostBytes = 4 << 20, kShareOfWeights = 0.25;
constexpr std::int64_t kTasksPerThread = 2;
constexpr std::size_t kWeightBytes = 16 << 20;  // more transformed weights would come from memory
constexpr double kImageBytes = 10 << 20;        // of transformed tiles that wait for them in L3
constexpr std::int64_t kMostTiles = 160;        // whose products stay near L2

class WinogradCorrelator {
 public:
  explicit WinogradCorrelator(const Correlation<float>& problem)
      : p_(problem),
        kernels_(kernels().conv.f32),
        kernel_(kernel_of(p_.taps)),
        tile_(tile_of(kernel_)),
        transform_(kernels().winograd.family(kernel_)),
        tiles_{ceil_div(p_.result_size.height, tile_), ceil_div(p_.result_size.width, tile_)},
        window_(p_.source, p_.groups * p_.inputs, p_.source_size, {1, 1},
                {tile_ * tiles_.height, tile_ * tiles_.width}, p_.taps, false),
        pitch_(pitch_of(p_.inputs)),
        panels_(ceil_div(p_.outputs, width())),
        blocks_(p_.images, tiles_.height,
                static_cast<double>(
                    bytes_of(tiles_.width * (kPoints * (pitch_ + width()) + tile_ * tile_ * width()) +
                             tile_ * window_.row_elements())),
                std::clamp(
                    kShareOfWeights * static_cast<double>(bytes_of(p_.groups * panels_ * panel_elements())),
                    kLeastBytes, kMostBytes),
                ceil_div(p_.images, kTasksPerThread * num_threads())) {}

  void run() {
    if (bytes_of(p_.groups * panels_ * panel_elements()) > kWeightBytes && panels_ >= 2 * num_threads())
      return run_by_panels();
    thread_local GemmWorkspace workspace;
    GemmWorkspace* const memory = &workspace;
    const std::int64_t all_panels = p_.groups * panels_, channels = p_.groups * p_.outputs;
    const std::int64_t tiles = blocks_.most_images() * blocks_.most_rows() * tiles_.width;
    const std::int64_t window_size = window_.elements(blocks_.most_images(), tile_ * blocks_.most_rows());
    memory->reserve(bytes_of(all_panels * panel_elements() + channels),
                    bytes_of(window_size + tiles * (kPoints * (pitch_ + width()) + tile_ * tile_ * width())),
                    num_threads());
    float* const weights = reinterpret_cast<float*>(memory->shared());
    float* const bias = weights + all_panels * panel_elements();
    for (std::int64_t o = 0; p_.bias && o < channels; ++o) bias[o] = p_.bias[o * p_.bias_stride];
    parallel_for(all_panels, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) transform_weights(i, weights + i * panel_elements());
    });
    const std::int64_t shares = std::clamp<std::int64_t>(
        ceil_div(kTasksPerThread * num_threads(), std::max<std::int64_t>(1, blocks_.count())), 1, all_panels);
    parallel_for(blocks_.count() * shares, 1, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(*memory);
      float* const window = reinterpret_cast<float*>(slot.data());
      float* const images = window + window_size;
      float* const products = images + tiles * kPoints * pitch_;
      for (std::int64_t task = begin; task < end; ++task) {
        const Block block = blocks_.at(task / shares);
        const auto place = window_.place({block.image, block.images, tile_ * block.row, tile_ * block.rows},
                                         window, kernels_);
        std::int64_t group = -1;
        for (std::int64_t i = part_begin(all_panels, shares, task % shares),
                          last = part_begin(all_panels, shares, task % shares + 1);
             i < last; ++i) {
          if (i / panels_ != group)
            transform_images(block, place, group = i / panels_, tiles_of(block) * pitch_, images);
          multiply_panel(block, i, images, weights + i * panel_elements(), products);
          store_panel(block, i, products, products + tiles * kPoints * width(), p_.bias ? bias : nullptr);
        }
      }
    });
  }

 private:
  // All tiles of some images first, then panel by panel of weights, each transformed where it is used.
  void run_by_panels() {
    thread_local GemmWorkspace workspace;
    GemmWorkspace* const memory = &workspace;
    const std::int64_t image_tiles = tiles_.height * tiles_.width, channels = p_.groups * p_.outputs;
    const Blocks chunks(p_.images, 1, static_cast<double>(bytes_of(image_tiles * kPoints * pitch_)),
                        kImageBytes, std::max<std::int64_t>(1, kMostTiles / image_tiles));
    const std::int64_t tiles = chunks.most_images() * image_tiles;
    const std::int64_t window_size = window_.elements(1, tile_ * tiles_.height);
    memory->reserve(bytes_of(channels + tiles * kPoints * pitch_),
                    bytes_of(window_size + panel_elements() + tiles * (kPoints + tile_ * tile_) * width()),
                    num_threads());
    float* const bias = reinterpret_cast<float*>(memory->shared());
    float* const images = bias + channels;
    for (std::int64_t o = 0; p_.bias && o < channels; ++o) bias[o] = p_.bias[o * p_.bias_stride];
    for (std::int64_t i = 0; i < chunks.count() * p_.groups; ++i) {
      const std::int64_t group = i % p_.groups;
      const Block chunk{chunks.at(i / p_.groups).image, chunks.at(i / p_.groups).images, 0, tiles_.height};
      transform_chunk(chunk, group, *memory, images);
      parallel_for(panels_, 1, [&](std::int64_t begin, std::int64_t end) {
        const GemmWorkspace::Slot slot(*memory);
        float* const weights = reinterpret_cast<float*>(slot.data()) + window_size;
        float* const products = weights + panel_elements();
        for (std::int64_t panel = group * panels_ + begin; panel < group * panels_ + end; ++panel) {
          transform_weights(panel, weights);
          multiply_panel(chunk, panel, images, weights, products);
          store_panel(chunk, panel, products, products + tiles * kPoints * width(), p_.bias ? bias : nullptr);
        }
      });
    }
  }

  std::int64_t width() const { return kernels_.tile_columns(); }
  std::int64_t panel_elements() const { return kPoints * p_.inputs * width(); }
  std::int64_t tiles_of(const Block& block) const { return block.images * block.rows * tiles_.width; }
  int columns_of(std::int64_t panel) const {
    return static_cast<int>(std::min(width(), p_.outputs - panel % panels_ * width()));
  }

  // (point, input, output of the panel)
  void transform_weights(std::int64_t index, float* to) const {
    const float* const from =
        p_.weight.data + index / panels_ * p_.weight.group + index % panels_ * width() * p_.weight.output;
    const std::int64_t count = kernel_ * kernel_;
    std::vector<float> taps(static_cast<std::size_t>(count * width()));
    const bool forward = p_.taps.rows[0].offset < p_.taps.rows[1].offset;
    const std::int64_t step = forward ? width() : -width(), columns = columns_of(index);
    for (std::int64_t c = 0; c < p_.inputs; ++c) {
      const float* const at = from + c * p_.weight.input;
      if (p_.taps.weight(1) - p_.taps.weight(0) == 1 &&
          p_.taps.weight(kernel_) - p_.taps.weight(0) == kernel_)
        kernels_.copy(taps.data(), width(), 1, at + p_.taps.weight(0), 1, p_.weight.output, count, columns);
      else
        for (std::int64_t t = 0; t < count; ++t)
          kernels_.copy(taps.data() + t * width(), 0, 1, at + p_.taps.weight(t), 0, p_.weight.output, 1,
                        columns);
      transform_(WinogradTransform::weights,
                 {taps.data() + (forward ? 0 : (count - 1) * width()), kernel_ * step, step, to + c * width(),
                  6 * p_.inputs * width(), p_.inputs * width(), columns});
    }
  }

  // (point, tile, input), points this step apart
  void transform_images(const Block& block, const Windows<float>::Place& place, std::int64_t group,
                        std::int64_t step, float* to) const {
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < block.rows; ++i)
        for (std::int64_t j = 0; j < tiles_.width; ++j, to += pitch_)
          transform_(
              WinogradTransform::image,
              {place.data + n * place.image + tile_ * (i * place.row + j * place.column) + group * p_.inputs,
               place.row, place.column, to, 6 * step, step, p_.inputs});
  }

  // All tiles of whole images, image by image.
  void transform_chunk(const Block& chunk, std::int64_t group, GemmWorkspace& memory, float* to) const {
    const std::int64_t image = tiles_.height * tiles_.width * pitch_;
    parallel_for(chunk.images, 1, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(memory);
      for (std::int64_t n = begin; n < end; ++n) {
        const auto place = window_.place({chunk.image + n, 1, 0, tile_ * tiles_.height},
                                         reinterpret_cast<float*>(slot.data()), kernels_);
        transform_images({chunk.image + n, 1, 0, tiles_.height}, place, group, tiles_of(chunk) * pitch_,
                         to + n * image);
      }
    });
  }

  // (point, tile, output of the panel)
  void multiply_panel(const Block& block, std::int64_t index, const float* images, const float* weights,
                      float* products) const {
    const std::int64_t tiles = tiles_of(block), depths = ceil_div(p_.inputs, kConvDepth<float>);
    for (std::int64_t point = 0; point < kPoints; ++point)
      for (std::int64_t d = 0; d < depths; ++d) {
        const std::int64_t k = part_begin(p_.inputs, depths, d);
        const ConvRun run{0, 0, part_begin(p_.inputs, depths, d + 1) - k};
        multiply(kernels_, kernels_.tiles,
                 {images + point * tiles * pitch_ + k, pitch_, &run, 1,
                  weights + (point * p_.inputs + k) * width(), width(), products + point * tiles * width(),
                  width(), columns_of(index), d > 0},
                 pitch_, tiles);
      }
  }

  void store_panel(const Block& block, std::int64_t index, const float* products, float* buffer,
                   const float* bias) const {
    const std::int64_t row = tile_ * tiles_.width * width(), step = tiles_of(block) * width();
    const std::int64_t channel = index / panels_ * p_.outputs + index % panels_ * width();
    const int columns = columns_of(index);
    for (std::int64_t n = 0; n < block.images * block.rows; ++n)
      for (std::int64_t j = 0; j < tiles_.width; ++j, products += width())
        transform_(
            WinogradTransform::results,
            {products, 6 * step, step, buffer + tile_ * (n * row + j * width()), row, width(), columns});
    if (bias || p_.activation != Activation::identity)
      kernels().gemm.f32.finish(buffer, width(), static_cast<int>(tile_ * tile_ * tiles_of(block)), columns,
                                bias ? bias + channel : nullptr, p_.activation);
    const std::int64_t first = tile_ * block.row;
    const std::int64_t rows = std::min(tile_ * block.rows, p_.result_size.height - first);
    for (std::int64_t n = 0; n < block.images; ++n)
      for (std::int64_t i = 0; i < rows; ++i)
        store_row(p_.result.at(block.image + n, first + i, 0) + channel * p_.result.channel,
                  buffer + (n * tile_ * block.rows + i) * row, columns);
  }

  void store_row(float* to, const float* from, std::int64_t columns) const {
    if (p_.result.channel == 1)
      kernels_.copy(to, p_.result.column, 1, from, width(), 1, p_.result_size.width, columns);
    else
      kernels_.copy(to, p_.result.channel, p_.result.column, from, 1, width(), columns, p_.result_size.width);
  }

  const Correlation<float>& p_;
  const ConvFamily<float>& kernels_;
  const std::int64_t kernel_, tile_;
  const WinogradFamily& transform_;
  const Extents tiles_;
  const Windows<float> window_;
  const std::int64_t pitch_, panels_;
  const Blocks blocks_;
};

}  // namespace

bool correlate_winograd(const Correlation<float>& c) {
  const std::int64_t kernel = c.step.height == 1 && c.step.width == 1 ? kernel_of(c.taps) : 0;
  if (!kernel || !worthwhile(c.inputs, c.outputs, c.result_size, tile_of(kernel))) return false;
  WinogradCorrelator(c).run();
  return true;
}

}  // namespace thalweg
