// The activations that other kernels can apply to their results before they leave the cache.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace thalweg {

enum class Activation : std::uint8_t { none, relu };

inline Activation parse_activation(const char* op, std::string_view name) {
  if (name == "relu") return Activation::relu;
  fail<ValueError>(op, ": activation must be None or 'relu', got '", name, "'");
}

}  // namespace thalweg
