// Names of the activations that other kernels can apply to their results while these are in cache.
// The rules themselves: `Activations` in rules/elementwise.h, in this order.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/error.h"

namespace thalweg {

enum class Activation : std::uint8_t { identity, relu, leaky_relu, sigmoid, tanh, gelu, softplus };

inline constexpr const char* kActivationNames[] = {"identity", "relu", "leaky_relu", "sigmoid",
                                                   "tanh",     "gelu", "softplus"};

inline Activation parse_activation(const char* op, std::string_view name) {
  int index = 0;
  for (const char* known : kActivationNames) {
    if (name == known) return static_cast<Activation>(index);
    ++index;
  }
  fail<ValueError>(op, ": activation must be None or one of 'identity', 'relu', 'leaky_relu', 'sigmoid', ",
                   "'tanh', 'gelu', 'softplus', got '", name, "'");
}

}  // namespace thalweg
