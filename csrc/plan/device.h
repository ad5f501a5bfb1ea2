// Which half runs a launch: the CPU's drivers or a CUDA table.
#pragma once

#include "base/view.h"
#include "cuda/table.h"

namespace thalweg {

// The table that serves arrays on `device`; null where the CPU's drivers do. DeviceError for a GPU
// without a table.
const cuda::Table* table_for(Device device);

void install_table(const cuda::Table* table);  // for arrays on a GPU
void emulate_with(const cuda::Table* table);   // tests: for arrays in host memory; null ends it
bool has_table();

// For operations that have no CUDA half: an error, never a silent copy to the host.
inline void refuse_cuda(const char* op, const View& view) {
  if (view.device == Device::cuda)
    fail<DeviceError>(op, ": has no CUDA kernel; move its arguments to the host with cupy.asnumpy");
}

// The stream of this thread's launches; set from the arguments of a call.
cuda::Stream& current_stream();

// on_device(out.device, cpu::reduce, &cuda::Table::reduce, arguments)
template <class... Params, class... TableParams, class... Args>
void on_device(Device device, void (*on_cpu)(Params...), void (*cuda::Table::*on_table)(TableParams...),
               const Args&... args) {
  if (const cuda::Table* table = table_for(device)) return (table->*on_table)(args..., current_stream());
  on_cpu(args...);
}

}  // namespace thalweg
