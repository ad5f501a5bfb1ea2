#include "cpu/isa.h"

#include <algorithm>
#include <atomic>
#include <cstdlib>

#include "base/error.h"

namespace thalweg {

namespace baseline {
Kernels make_kernels();
}
namespace avx2 {
Kernels make_kernels();
}
namespace avx512 {
Kernels make_kernels();
}

namespace {

struct Isa {
  Kernels kernels;
  bool available;
};

// Slowest first. __builtin_cpu_supports also asks whether the OS saves the registers.
std::vector<Isa>& isas() {
  static std::vector<Isa> all = [] {
    __builtin_cpu_init();
    return std::vector<Isa>{
        {baseline::make_kernels(), true},
        {avx2::make_kernels(), __builtin_cpu_supports("x86-64-v3") != 0},
        {avx512::make_kernels(), __builtin_cpu_supports("x86-64-v4") != 0},
    };
  }();
  return all;
}

std::string names(bool only_available) {
  std::string text;
  for (const Isa& isa : isas()) {
    if (only_available && !isa.available) continue;
    if (!text.empty()) text += ", ";
    text += isa.kernels.name;
  }
  return text;
}

const Kernels* find(const std::string& name, const char* source) {
  for (const Isa& isa : isas()) {
    if (name != isa.kernels.name) continue;
    if (!isa.available)
      fail<DeviceError>(source, ": this CPU cannot run ", name, ", it can run ", names(true));
    return &isa.kernels;
  }
  fail<ValueError>(source, ": unknown instruction set '", name, "', expected one of ", names(false));
}

const Kernels* choose() {
  const char* forced = std::getenv("THALWEG_ISA");
  if (forced && *forced) return find(forced, "THALWEG_ISA");
  const Kernels* best = nullptr;
  for (const Isa& isa : isas())
    if (isa.available) best = &isa.kernels;
  return best;
}

std::atomic<const Kernels*>& current() {
  static std::atomic<const Kernels*> table{choose()};
  return table;
}

}  // namespace

const Kernels& kernels() { return *current().load(std::memory_order_relaxed); }

void use_isa(const std::string& name) { current().store(find(name, "use_isa")); }

std::vector<std::string> available_isas() {
  std::vector<std::string> result;
  for (const Isa& isa : isas())
    if (isa.available) result.emplace_back(isa.kernels.name);
  return result;
}

}  // namespace thalweg
