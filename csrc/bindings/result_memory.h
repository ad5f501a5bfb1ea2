// The memory of large results. What a result has left is kept for the next one of its size: an allocator
// that gives it back to the system, as the C library's does with large blocks, has every activation of
// every training step trap for each of its pages again, which took longer than the kernels that fill them.
//
// Never is more held than results have taken at once, nor more than a quarter of the machine's memory kept.
#pragma once

#include <pybind11/pybind11.h>

#include <cstddef>
#include <optional>

namespace thalweg::bindings {

// While it lives, NumPy takes the memory of an array of `bytes` from here, if that is large and if nobody
// else has told NumPy where memory comes from.
class ResultMemory {
 public:
  explicit ResultMemory(std::size_t bytes);
  ~ResultMemory();
  ResultMemory(const ResultMemory&) = delete;
  ResultMemory& operator=(const ResultMemory&) = delete;

 private:
  pybind11::object before_;
};

// Gives back what is kept; how many bytes that were.
std::size_t release_memory();

}  // namespace thalweg::bindings
