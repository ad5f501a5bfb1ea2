// Memory from the system: aligned to cache lines, and in huge pages where it is large. A kernel that walks
// over megabytes in pages of 4 KiB waits for addresses to be translated, and each page of new memory is a
// trap of a microsecond.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace thalweg {

inline constexpr std::size_t kCacheLine = 64, kHugePage = std::size_t{2} << 20;

struct FreeMemory {
  void operator()(std::byte* bytes) const { std::free(bytes); }
};
using Bytes = std::unique_ptr<std::byte[], FreeMemory>;

// Uninitialised; null if there is no room.
inline Bytes try_allocate(std::size_t bytes, std::size_t alignment = kCacheLine) {
  const std::size_t unit = bytes < 2 * kHugePage ? alignment : kHugePage;
  const std::size_t whole = (bytes + unit - 1) / unit * unit;
  auto* const memory = static_cast<std::byte*>(std::aligned_alloc(unit, whole ? whole : unit));
#ifdef __linux__
  if (memory && unit == kHugePage) madvise(memory, whole, MADV_HUGEPAGE);
#endif
  return Bytes(memory);
}

inline Bytes allocate(std::size_t bytes, std::size_t alignment = kCacheLine) {
  Bytes memory = try_allocate(bytes, alignment);
  if (!memory) throw std::bad_alloc();
  return memory;
}

}  // namespace thalweg
