// Where blocks of memory go that are not alive at the same time.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "base/memory.h"

namespace thalweg {

struct Lifetime {
  std::size_t bytes = 0;
  std::size_t first = ~std::size_t{0}, last = 0;  // launch that uses it
  std::size_t offset = 0;

  void include(std::size_t launch) {
    first = std::min(first, launch);
    last = std::max(last, launch);
  }
  bool meets(const Lifetime& other) const { return first <= other.last && other.first <= last; }
};

// Sets the offsets and returns how many bytes they take: the largest blocks first, each one at the
// lowest place that is free for as long as it lives.
inline std::size_t place(std::vector<Lifetime>& lifetimes) {
  std::vector<Lifetime*> order, placed;  // placed: by offset
  for (Lifetime& each : lifetimes)
    if (each.bytes > 0 && each.first <= each.last) order.push_back(&each);
  std::stable_sort(order.begin(), order.end(),
                   [](const Lifetime* a, const Lifetime* b) { return a->bytes > b->bytes; });
  std::size_t end = 0;
  for (Lifetime* each : order) {
    std::size_t offset = 0;
    for (const Lifetime* other : placed) {
      if (!each->meets(*other)) continue;
      if (offset + each->bytes <= other->offset) break;
      offset = std::max(offset, (other->offset + other->bytes + kCacheLine - 1) / kCacheLine * kCacheLine);
    }
    each->offset = offset;
    end = std::max(end, offset + each->bytes);
    const auto lower = [](const Lifetime* a, const Lifetime* b) { return a->offset < b->offset; };
    placed.insert(std::upper_bound(placed.begin(), placed.end(), each, lower), each);
  }
  return end;
}

}  // namespace thalweg
