#include "plan/device.h"

#include <atomic>

namespace thalweg {
namespace {

std::atomic<const cuda::Table*> installed{nullptr}, emulator{nullptr};

}  // namespace

const cuda::Table* table_for(Device device) {
  if (device == Device::cpu) return emulator.load(std::memory_order_relaxed);
  if (const cuda::Table* table = installed.load(std::memory_order_relaxed)) return table;
  fail<DeviceError>("CUDA array, but the CUDA half of thalweg is not loaded; `thalweg doctor` says why");
}

void install_table(const cuda::Table* table) { installed.store(table); }
void emulate_with(const cuda::Table* table) { emulator.store(table); }
bool has_table() { return installed.load(std::memory_order_relaxed) != nullptr; }

cuda::Stream& current_stream() {
  thread_local cuda::Stream stream = nullptr;
  return stream;
}

}  // namespace thalweg
