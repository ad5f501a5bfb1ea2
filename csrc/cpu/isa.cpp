#include "cpu/isa.h"

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

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

namespace avx512_bf16 {
Bf16Kernels make_bf16_kernels();
}
namespace amx {
Bf16Kernels make_bf16_kernels();
}
namespace amx_emulated {
Bf16Kernels make_bf16_kernels();
}

namespace {

struct Isa {
  Kernels kernels;
  bool available;
  bool listed = true;  // else for tests: by name alone, never by default
};

// Tiles are 8 KiB of state that Linux saves only for processes that asked for it.
bool tiles_permitted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool has_amx_bf16() {
  constexpr unsigned kBf16 = 1U << 22, kTile = 1U << 24;  // of leaf 7, EDX
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kBf16) && (d & kTile) && tiles_permitted();
}

Kernels with_bf16(Kernels kernels, const char* name, const Bf16Kernels& bf16) {
  kernels.name = name;
  kernels.bf16 = bf16;
  return kernels;
}

// Slowest first. __builtin_cpu_supports also asks whether the OS saves the registers.
std::vector<Isa>& isas() {
  static std::vector<Isa> all = [] {
    __builtin_cpu_init();
    const bool has_avx2 = __builtin_cpu_supports("x86-64-v3"),
               has_avx512 = __builtin_cpu_supports("x86-64-v4");
    const bool has_bf16 = has_avx512 && __builtin_cpu_supports("avx512bf16");
    Kernels avx512 = avx512::make_kernels();
    if (has_bf16) avx512.bf16 = avx512_bf16::make_bf16_kernels();
    const Kernels best = has_avx512 ? avx512 : has_avx2 ? avx2::make_kernels() : baseline::make_kernels();
    return std::vector<Isa>{
        {baseline::make_kernels(), true},
        {avx2::make_kernels(), has_avx2},
        {avx512, has_avx512},
        {with_bf16(avx512, "amx", amx::make_bf16_kernels()), has_bf16 && has_amx_bf16()},
        {with_bf16(best, "amx_emulated", amx_emulated::make_bf16_kernels()), true, false},
    };
  }();
  return all;
}

std::string names(bool only_available) {
  std::string text;
  for (const Isa& isa : isas()) {
    if (!isa.listed || (only_available && !isa.available)) continue;
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
    if (isa.available && isa.listed) best = &isa.kernels;
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
    if (isa.available && isa.listed) result.emplace_back(isa.kernels.name);
  return result;
}

}  // namespace thalweg
