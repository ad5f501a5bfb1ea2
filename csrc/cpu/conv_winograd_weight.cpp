// The gradient of a 3 x 3 or 5 x 5 convolution's weights with a quarter or a third of the products: for each
// point of the transforms (kernels/conv_winograd.h) a matrix product over tiles.
#include <algorithm>
#include <vector>

#include "base/parallel.h"
#include "cpu/conv_winograd.h"
#include "cpu/gemm_workspace.h"

namespace thalweg {
namespace {

using namespace winograd;

constexpr double kTaskFlops = 3e5;  // a few microseconds

class WinogradWeightGradient {
 public:
  WinogradWeightGradient(const ConvGeometry& geometry, const View& dy, const View& x, const View& dw)
      : g_(geometry),
        dw_(dw),
        kernels_(kernels().conv.f32),
        kernel_(g_.kernel.height),
        tile_(tile_of(kernel_)),
        transform_(kernels().winograd.family(kernel_)),
        tiles_{ceil_div(g_.y.height, tile_), ceil_div(g_.y.width, tile_)},
        x_(Images<const float>(x), g_.channels, g_.x, {1, 1}, padded(), taps_of(geometry, dw), false),
        dy_(Images<const float>(dy), g_.outputs, g_.y, {1, 1}, padded(), {{{0, 0}}, {{0, 0}}}, false),
        inputs_(g_.channels / g_.groups),
        outputs_(g_.outputs / g_.groups),
        pitch_(pitch_of(g_.channels)),
        panels_(ceil_div(outputs_, width())),
        blocks_(g_.images, tiles_.height, static_cast<double>(tiles_.width), kConvDepth<float>, g_.images) {}

  void run() {
    thread_local GemmWorkspace workspace;
    const std::int64_t tiles = blocks_.most_images() * blocks_.most_rows() * tiles_.width;
    const std::int64_t all_panels = g_.groups * panels_, panel_sums = kPoints * inputs_ * width();
    // Sums of a single block are transformed where they are made, and never lie in memory all at once.
    const bool at_once = blocks_.count() == 1 && all_panels >= 2 * num_threads();
    const std::int64_t sums_size = at_once ? 0 : all_panels * panel_sums;
    const std::int64_t x_size = x_.elements(1, tile_), dy_size = dy_.elements(1, tile_);
    workspace.reserve(bytes_of(sums_size + tiles * kPoints * (pitch_ + all_panels * width())),
                      bytes_of(std::max(x_size + dy_size, at_once ? panel_sums : 0)), num_threads());
    sums_ = reinterpret_cast<float*>(workspace.shared());
    images_ = sums_ + sums_size;
    gradients_ = images_ + tiles * kPoints * pitch_;
    if (blocks_.count() == 0) std::fill_n(sums_, sums_size, 0.0F);
    GemmWorkspace* const memory = &workspace;
    for (std::int64_t i = 0; i < blocks_.count(); ++i) {
      const Block block = blocks_.at(i);
      parallel_for(block.images * block.rows, 1, [&](std::int64_t begin, std::int64_t end) {
        const GemmWorkspace::Slot slot(*memory);
        float* const buffer = reinterpret_cast<float*>(slot.data());
        for (std::int64_t row = begin; row < end; ++row) transform_row(block, row, buffer, buffer + x_size);
      });
      if (!at_once) multiply_block(block.images * block.rows * tiles_.width, i > 0);
    }
    parallel_for(all_panels, 1, [&](std::int64_t begin, std::int64_t end) {
      const GemmWorkspace::Slot slot(*memory);
      float* const buffer = reinterpret_cast<float*>(slot.data());
      for (std::int64_t panel = begin; panel < end; ++panel) {
        float* const sums = at_once ? buffer : sums_ + panel * panel_sums;
        for (std::int64_t point = 0; at_once && point < kPoints; ++point)
          multiply_point(panel, point, tiles, false, sums + point * inputs_ * width());
        store_panel(panel, sums);
      }
    });
  }

 private:
  Extents padded() const { return {tile_ * tiles_.height, tile_ * tiles_.width}; }
  std::int64_t width() const { return kernels_.tile_columns(); }

  // One row of tiles: images (point, tile, channel), gradients (panel, point, tile, output of the panel).
  void transform_row(const Block& block, std::int64_t row, float* x_buffer, float* dy_buffer) const {
    const Block one{block.image + row / block.rows, 1, tile_ * (block.row + row % block.rows), tile_};
    const auto x = x_.place(one, x_buffer, kernels_), dy = dy_.place(one, dy_buffer, kernels_);
    const std::int64_t tiles = block.images * block.rows * tiles_.width;
    for (std::int64_t j = 0; j < tiles_.width; ++j) {
      const std::int64_t tile = row * tiles_.width + j;
      transform_(WinogradTransform::image,
                 {x.data + tile_ * j * x.column, x.row, x.column, images_ + tile * pitch_, 6 * tiles * pitch_,
                  tiles * pitch_, g_.channels});
      for (std::int64_t p = 0; p < g_.groups * panels_; ++p) {
        const std::int64_t first = p % panels_ * width();
        transform_(WinogradTransform::gradient,
                   {dy.data + tile_ * j * dy.column + p / panels_ * outputs_ + first, dy.row, dy.column,
                    gradients_ + (p * kPoints * tiles + tile) * width(), 6 * tiles * width(), tiles * width(),
                    std::min(width(), outputs_ - first)});
      }
    }
  }

  // sums (panel, point, input, output of the panel): a matrix product over tiles for each panel and point.
  void multiply_block(std::int64_t tiles, bool accumulate) const {
    const double flops = 2.0 * static_cast<double>(inputs_ * tiles * width());
    const auto grain = static_cast<std::int64_t>(std::max(1.0, kTaskFlops / flops));
    parallel_for(g_.groups * panels_ * kPoints, grain, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i)
        multiply_point(i / kPoints, i % kPoints, tiles, accumulate, sums_ + i * inputs_ * width());
    });
  }

  void multiply_point(std::int64_t panel, std::int64_t point, std::int64_t tiles, bool accumulate,
                      float* sums) const {
    const ConvRun run{0, 0, tiles};
    multiply(kernels_, kernels_.column_tiles,
             {images_ + point * tiles * pitch_ + panel / panels_ * inputs_, pitch_, &run, 1,
              gradients_ + (panel * kPoints + point) * tiles * width(), width(), sums, width(),
              static_cast<int>(std::min(width(), outputs_ - panel % panels_ * width())), accumulate},
             1, inputs_);
  }

  void store_panel(std::int64_t panel, const float* sums) const {
    const std::int64_t first = panel % panels_ * width(), columns = std::min(width(), outputs_ - first);
    const std::int64_t step = inputs_ * width();
    std::vector<float> taps(static_cast<std::size_t>(kernel_ * kernel_ * width()));
    float* const to = dw_.as<float>() + (panel / panels_ * outputs_ + first) * dw_.strides[0];
    for (std::int64_t c = 0; c < inputs_; ++c) {
      transform_(WinogradTransform::weight_gradient,
                 {sums + c * width(), 6 * step, step, taps.data(), kernel_ * width(), width(), columns});
      kernels_.copy(to + c * dw_.strides[1], dw_.strides[0], 1, taps.data(), 1, width(), columns,
                    kernel_ * kernel_);
    }
  }

  const ConvGeometry& g_;
  const View& dw_;
  const ConvFamily<float>& kernels_;
  const std::int64_t kernel_, tile_;
  const WinogradFamily& transform_;
  const Extents tiles_;
  const Windows<float> x_, dy_;
  const std::int64_t inputs_, outputs_, pitch_, panels_;
  const Blocks blocks_;
  float *sums_ = nullptr, *images_ = nullptr, *gradients_ = nullptr;
};

}  // namespace

bool winograd_weight_gradient(const ConvGeometry& g, const View& dy, const View& x, const View& dw) {
  const std::int64_t kernel = g.stride.height == 1 && g.stride.width == 1 ? kernel_of(taps_of(g, dw)) : 0;
  if (!kernel || dw.dtype != DType::f32 || dw.strides[3] != 1 || dw.strides[2] != kernel) return false;
  if (!worthwhile(g.channels / g.groups, g.outputs / g.groups, g.y, tile_of(kernel))) return false;
  WinogradWeightGradient(g, dy, x, dw).run();
  return true;
}

}  // namespace thalweg
