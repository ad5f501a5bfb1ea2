// What the CUDA half does: one function per operation, with the arguments of the CPU's driver and the
// stream to run on. All checks are done in ops/ before; only first_bad_label() waits for the device.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "cpu/conv.h"
#include "cpu/dropout.h"
#include "cpu/elementwise.h"
#include "cpu/gemm.h"
#include "cpu/lrn.h"
#include "cpu/pool.h"
#include "cpu/reduce.h"
#include "cpu/softmax.h"
#include "cuda/norm.h"
#include "cuda/optim.h"
#include "cuda/stream.h"

namespace thalweg::cuda {

// elementwise.cu
void copy(const View& x, const View& y, Stream stream);
void unary(int rule, double parameter, const View& x, const View& y, Stream stream);
void binary(int rule, const Operand& a, const Operand& b, const View& y, Stream stream);
void gradient(int rule, double parameter, const View& dy, const View& saved, const View& dx, Stream stream);

// reduce.cu
void reduce(const cpu::ReduceArguments& arguments, Stream stream);

// softmax.cu
void softmax(cpu::SoftmaxForm form, const View& x, const View& y, int axis, Stream stream);
void softmax_backward(cpu::SoftmaxForm form, const View& dy, const View& y, const View& dx, int axis,
                      Stream stream);
void softmax_cross_entropy(const View& logits, const View& target, double label_smoothing,
                           cpu::LossReduction reduction, const View& loss, const View& dlogits,
                           Stream stream);
// The first row of target whose label is no class. Waits for the answer: an error depends on it.
struct BadLabel {
  std::int64_t row, label;
};
std::optional<BadLabel> first_bad_label(const View& target, std::int64_t classes, Stream stream);

// norm.cu
void batch_norm_train(const BatchNormTraining& training, Stream stream);
void batch_norm_fixed(const View& running_mean, const View& running_var, double eps, const View& mean,
                      const View& rstd, Stream stream);  // mean and 1 / sqrt(var + eps), float64
void batch_norm_statistics(const View& x, int axis, const View& mean, const View& m2, Stream stream);
void batch_norm_apply(const cpu::BatchNormArguments& a, const View& mean, const View& rstd, Stream stream);
void batch_norm_backward(const BatchNormBackward& backward, Stream stream);
void batch_norm_backward_sums(const View& dy, const View& x, int axis, const View& mean, const View& rstd,
                              const View& sum_dy, const View& sum_dy_xhat, Stream stream);
void batch_norm_backward_apply(const cpu::BatchNormGradient& a, const View& mean, const View& rstd,
                               const View& sum_dy, const View& sum_dy_xhat, double n, Stream stream);

// dropout.cu
void dropout(const View& x, const View& y, const DropoutOptions& options, Stream stream);

// gemm.cu. How float32 products are computed: multiply-adds, three tf32 products, or operands rounded
// to bf16 (both on the matrix units). float64 always uses multiply-adds.
enum class GemmScheme : std::uint8_t { fma, tf32x3, bf16 };
void gemm(const GemmProblem& problem, GemmScheme scheme, Stream stream);

// conv.cu
void conv2d(const ConvGeometry& geometry, GemmScheme scheme, const View& x, const View& weight,
            const std::optional<View>& bias, Activation activation, const View& y, Stream stream);
void conv2d_data_gradient(const ConvGeometry& geometry, GemmScheme scheme, const View& dy, const View& weight,
                          const View& dx, Stream stream);
void conv2d_weight_gradient(const ConvGeometry& geometry, GemmScheme scheme, const View& dy, const View& x,
                            const View& dw, Stream stream);

// pool.cu
void max_pool(const cpu::PoolGeometry& g, const View& x, bool relu, const View& y, const View& index,
              Stream stream);
void max_pool_backward(const cpu::PoolGeometry& g, const View& dy, const View& index, const View& dx,
                       Stream stream);
void max_pool_pick(const cpu::PoolGeometry& g, const View& x, const View& index, const View& y,
                   Stream stream);
void avg_pool(const cpu::PoolGeometry& g, const View& x, const View& y, Stream stream);
void avg_pool_backward(const cpu::PoolGeometry& g, const View& dy, const View& dx, Stream stream);

// lrn.cu
void local_response_norm(const cpu::LrnOptions& o, const View& x, const View& y, Stream stream);
void local_response_norm_backward(const cpu::LrnOptions& o, const View& dy, const View& x, const View& dx,
                                  Stream stream);

// optim.cu
void optim_step(const OptimStep& step, Stream stream);
void optim_norm(std::span<const OptimItem> items, double grad_scale, double* norm, Stream stream);

}  // namespace thalweg::cuda
