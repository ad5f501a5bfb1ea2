#include "cpu/widen.h"

#include "base/half.h"
#include "base/parallel.h"

namespace thalweg {
namespace {

constexpr std::int64_t kGrain = 1 << 14;  // elements

// f(offset in the array, stride, offset in the copy, count) for each row.
template <class F>
void for_each_row(const WideLayout& layout, const F& f) {
  const std::int64_t columns = layout.extent[layout.rank - 1];
  if (layout.elements() == 0) return;
  parallel_for(layout.elements() / columns, kGrain / columns + 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row)
      f(layout.offset(row * columns), layout.stride[layout.rank - 1], row * columns, columns);
  });
}

}  // namespace

void widen(const WideLayout& layout, const void* data, float* copy) {
  for_each_row(layout, [&](std::int64_t from, std::int64_t stride, std::int64_t to, std::int64_t count) {
    const auto* x = static_cast<const std::uint16_t*>(data) + from;
    for (std::int64_t j = 0; j < count; ++j) copy[to + j] = Bfloat16::widen(x[j * stride]);
  });
}

void narrow(const WideLayout& layout, const float* copy, void* data) {
  for_each_row(layout, [&](std::int64_t to, std::int64_t stride, std::int64_t from, std::int64_t count) {
    auto* x = static_cast<std::uint16_t*>(data) + to;
    for (std::int64_t j = 0; j < count; ++j) x[j * stride] = Bfloat16::narrow(copy[from + j]);
  });
}

}  // namespace thalweg
