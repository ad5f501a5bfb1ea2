// The CUDA half as the rest of the package sees it: a second kernel table.
//
// How the two halves meet
//   - `_cuda` is an extension module of its own (nvcc, static CUDA runtime), so that the package imports
//     and works where no GPU, driver or CUDA build is. Python imports it when CUDA is first asked for and
//     hands its table to `_core` as a capsule. `_cuda_emulated` is the same sources compiled by the host
//     compiler (emulate/): its table takes NumPy arrays, for tests alone.
//   - `_core` keeps everything that exists once: conversion of arrays, checks, launch records. A launch
//     ends in on_device() (plan/device.h), which calls the CPU's driver or this table's function of the
//     same name with the same arguments and a stream. So an operation's CUDA half is: its function in a
//     .cu file, a line in families.h and here, and on_device() in its launch.
//   - A view says on which device its memory is; checks refuse operands on different ones. There is no
//     fall-back: a view on a GPU reaches this table or an error.
//   - Arrays belong to CuPy. What lives between two launches of an operation is stream-ordered memory of
//     the driver (Scratch). Nothing waits for the device, except where an error message depends on it.
//   - The stream is that of the library that the arguments came from, at the time of the call.
#pragma once

#include <cstddef>

#include "cuda/families.h"

namespace thalweg::cuda {

struct Table {
  std::size_t size = sizeof(Table);  // of a table built from the same sources
  const char* name = nullptr;        // "cuda" or "emulated"

  decltype(&cuda::copy) copy = nullptr;
  decltype(&cuda::unary) unary = nullptr;
  decltype(&cuda::binary) binary = nullptr;
  decltype(&cuda::gradient) gradient = nullptr;
  decltype(&cuda::reduce) reduce = nullptr;
  decltype(&cuda::softmax) softmax = nullptr;
  decltype(&cuda::softmax_backward) softmax_backward = nullptr;
  decltype(&cuda::softmax_cross_entropy) softmax_cross_entropy = nullptr;
  decltype(&cuda::first_bad_label) first_bad_label = nullptr;
  decltype(&cuda::batch_norm_train) batch_norm_train = nullptr;
  decltype(&cuda::batch_norm_fixed) batch_norm_fixed = nullptr;
  decltype(&cuda::batch_norm_statistics) batch_norm_statistics = nullptr;
  decltype(&cuda::batch_norm_apply) batch_norm_apply = nullptr;
  decltype(&cuda::batch_norm_backward) batch_norm_backward = nullptr;
  decltype(&cuda::batch_norm_backward_sums) batch_norm_backward_sums = nullptr;
  decltype(&cuda::batch_norm_backward_apply) batch_norm_backward_apply = nullptr;
  decltype(&cuda::dropout) dropout = nullptr;
  decltype(&cuda::gemm) gemm = nullptr;
  decltype(&cuda::conv2d) conv2d = nullptr;
  decltype(&cuda::conv2d_data_gradient) conv2d_data_gradient = nullptr;
  decltype(&cuda::conv2d_weight_gradient) conv2d_weight_gradient = nullptr;
  decltype(&cuda::max_pool) max_pool = nullptr;
  decltype(&cuda::max_pool_backward) max_pool_backward = nullptr;
  decltype(&cuda::max_pool_pick) max_pool_pick = nullptr;
  decltype(&cuda::avg_pool) avg_pool = nullptr;
  decltype(&cuda::avg_pool_backward) avg_pool_backward = nullptr;
  decltype(&cuda::local_response_norm) local_response_norm = nullptr;
  decltype(&cuda::local_response_norm_backward) local_response_norm_backward = nullptr;
  decltype(&cuda::optim_step) optim_step = nullptr;
  decltype(&cuda::optim_norm) optim_norm = nullptr;
};

inline constexpr const char* kTableCapsule = "thalweg.cuda.table";

}  // namespace thalweg::cuda
