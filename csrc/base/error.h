// Typed errors. A message says where, what was expected, what came, and the remedy.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace thalweg {

struct ValueError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct TypeError : std::invalid_argument {
  using std::invalid_argument::invalid_argument;
};
struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// fail<ValueError>("matmul: inner dimensions differ, a is ", a, ", b is ", b)
template <class Error, class... Parts>
[[noreturn]] __attribute__((cold, noinline)) void fail(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

}  // namespace thalweg
