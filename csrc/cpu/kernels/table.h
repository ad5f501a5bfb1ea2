// The kernel table: what one instruction set offers to the drivers in cpu/, which know no ISA.
//
// Each family declares its part beside its sources (elementwise.h, gemm.h, …) as a struct of
// function pointers and sizes, and each ISA's copy of the sources fills it. Kernels see raw pointers
// and lengths; checks, blocking and threads are the drivers' business.
#pragma once

#include "base/config.h"
#include "cpu/kernels/conv.h"
#include "cpu/kernels/conv_winograd.h"
#include "cpu/kernels/dropout.h"
#include "cpu/kernels/elementwise.h"
#include "cpu/kernels/gemm.h"
#include "cpu/kernels/gemm_bf16.h"
#include "cpu/kernels/limits.h"
#include "cpu/kernels/lrn.h"
#include "cpu/kernels/norm.h"
#include "cpu/kernels/optim.h"
#include "cpu/kernels/pool.h"
#include "cpu/kernels/reduce.h"
#include "cpu/kernels/softmax.h"

namespace thalweg {

struct Kernels {
  const char* name = nullptr;
  ElementwiseKernels elementwise;
  DropoutKernels dropout;
  ReduceKernels reduce;
  SoftmaxKernels softmax;
  NormKernels norm;
  LrnKernels lrn;
  PoolKernels pool;
  GemmKernels gemm;
  ConvKernels conv;
  WinogradKernels winograd;
  OptimKernels optim;
  LimitKernels limits;
  Bf16Kernels bf16;  // compiled apart (cpu/isa.cpp): few CPUs have any
};

inline namespace THALWEG_ISA {
void fill(ElementwiseKernels&);
void fill(DropoutKernels&);
void fill(ReduceKernels&);
void fill(SoftmaxKernels&);
void fill(NormKernels&);
void fill(LrnKernels&);
void fill(PoolKernels&);
void fill(GemmKernels&);
void fill(ConvKernels&);
void fill(WinogradKernels&);
void fill(OptimKernels&);
void fill(LimitKernels&);
Kernels make_kernels();
}  // namespace THALWEG_ISA

}  // namespace thalweg
