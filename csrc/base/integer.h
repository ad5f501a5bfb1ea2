// Whole numbers of pieces, for n >= 0 and size > 0.
#pragma once

#include <cstdint>

namespace thalweg {

constexpr std::int64_t ceil_div(std::int64_t n, std::int64_t size) { return (n + size - 1) / size; }
constexpr std::int64_t round_up(std::int64_t n, std::int64_t size) { return ceil_div(n, size) * size; }

}  // namespace thalweg
