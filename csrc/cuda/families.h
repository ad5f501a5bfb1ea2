// What the CUDA half does: one function per operation, with the arguments of the CPU's driver and the
// stream to run on. All checks are done in ops/ before; nothing here waits for the device.
#pragma once

#include <cstdint>
#include <span>

#include "cpu/elementwise.h"
#include "cpu/gemm.h"
#include "cpu/reduce.h"
#include "cuda/optim.h"
#include "cuda/stream.h"

namespace thalweg::cuda {

// elementwise.cu
void unary(int rule, double parameter, const View& x, const View& y, Stream stream);
void binary(int rule, const Operand& a, const Operand& b, const View& y, Stream stream);
void gradient(int rule, double parameter, const View& dy, const View& saved, const View& dx, Stream stream);

// reduce.cu
void reduce(const cpu::ReduceArguments& arguments, Stream stream);

// gemm.cu. How float32 products are computed: multiply-adds, three tf32 products, or operands rounded
// to bf16 (both on the matrix units). float64 always uses multiply-adds.
enum class GemmScheme : std::uint8_t { fma, tf32x3, bf16 };
void gemm(const GemmProblem& problem, GemmScheme scheme, Stream stream);

// optim.cu
void optim_step(const OptimStep& step, Stream stream);
void optim_norm(std::span<const OptimItem> items, double grad_scale, double* norm, Stream stream);

}  // namespace thalweg::cuda
