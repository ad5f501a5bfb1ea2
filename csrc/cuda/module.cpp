// The extension module thalweg._cuda, and thalweg._cuda_emulated of the tests: a table in a capsule.
#include <pybind11/pybind11.h>

#include "cuda/table.h"

#ifdef THALWEG_CUDA_EMULATED
#include "cuda/emulate/block.h"
#define THALWEG_CUDA_MODULE _cuda_emulated
#else
#include <cuda_runtime_api.h>
#define THALWEG_CUDA_MODULE _cuda
#endif

namespace thalweg::cuda {
namespace {

namespace py = pybind11;

const Table& table() {
  static const Table table{.name = THALWEG_CUDA_NAME,
                           .copy = copy,
                           .unary = unary,
                           .binary = binary,
                           .gradient = gradient,
                           .reduce = reduce,
                           .softmax = softmax,
                           .softmax_backward = softmax_backward,
                           .softmax_cross_entropy = softmax_cross_entropy,
                           .first_bad_label = first_bad_label,
                           .batch_norm_train = batch_norm_train,
                           .batch_norm_fixed = batch_norm_fixed,
                           .batch_norm_statistics = batch_norm_statistics,
                           .batch_norm_apply = batch_norm_apply,
                           .batch_norm_backward = batch_norm_backward,
                           .batch_norm_backward_sums = batch_norm_backward_sums,
                           .batch_norm_backward_apply = batch_norm_backward_apply,
                           .dropout = dropout,
                           .gemm = gemm,
                           .conv2d = conv2d,
                           .conv2d_data_gradient = conv2d_data_gradient,
                           .conv2d_weight_gradient = conv2d_weight_gradient,
                           .max_pool = max_pool,
                           .max_pool_backward = max_pool_backward,
                           .max_pool_pick = max_pool_pick,
                           .avg_pool = avg_pool,
                           .avg_pool_backward = avg_pool_backward,
                           .local_response_norm = local_response_norm,
                           .local_response_norm_backward = local_response_norm_backward,
                           .optim_step = optim_step,
                           .optim_norm = optim_norm};
  return table;
}

#ifdef THALWEG_CUDA_EMULATED
void set_order(const std::string& name) {
  emulate::set_order(name == "reverse" ? emulate::Order::reverse : emulate::Order::forward);
}
#else
// Why no kernel can run here, or None.
py::object problem() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess) return py::str(cudaGetErrorString(status));
  if (devices == 0) return py::str("no CUDA device was found");
  return py::none();
}

// Keeps freed scratch memory in the driver's pool: by default it goes back at each synchronisation.
void keep_scratch_memory() {
  int device = 0;
  cudaMemPool_t pool = nullptr;
  std::uint64_t all = ~std::uint64_t{0};
  if (cudaGetDevice(&device) == cudaSuccess && cudaDeviceGetDefaultMemPool(&pool, device) == cudaSuccess)
    cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &all);
}
#endif

}  // namespace

PYBIND11_MODULE(THALWEG_CUDA_MODULE, m) {
  m.doc() = "CUDA kernels of thalweg, as a table for thalweg._core.";
  m.def("table", [] { return py::capsule(&table(), kTableCapsule); });
#ifdef THALWEG_CUDA_EMULATED
  m.def("set_order", &set_order, py::arg("name"));
#else
  m.def("problem", &problem);
  m.def("keep_scratch_memory", &keep_scratch_memory);
#endif
}

}  // namespace thalweg::cuda
