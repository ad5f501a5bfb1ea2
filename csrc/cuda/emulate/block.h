// One thread block of the emulation: a fiber per CUDA thread, and what the threads wait for.
//
// Warps are run one after the other, each as far as it gets before the next one moves, and lanes
// likewise inside a warp: the most uneven schedule there is, in both directions (Order). A kernel
// that lacks a barrier reads poison or stale values in at least one of the two.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <source_location>
#include <string>
#include <vector>

#include "cuda/emulate/fiber.h"

namespace thalweg::cuda {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
  Dim3() = default;
  Dim3(unsigned x_, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  std::size_t volume() const { return std::size_t{x} * y * z; }
};

// CUDA's names; the scheduler sets them each time a thread goes on.
inline Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulate {

enum class Order { forward, reverse };

using Site = std::source_location;

inline constexpr unsigned kWarp = 32;
inline constexpr std::size_t kLaneBytes = 32;  // the largest operand of a warp collective: mma's A and B

// A point where `expected` threads have to arrive before any goes on.
struct Rendezvous {
  unsigned generation = 0, arrived = 0;
  Site site;
};

struct AsyncCopy {
  void* to;
  const void* from;
  std::size_t bytes, valid;  // the rest is filled with zeros
};

class Block {
 public:
  Block() = default;

  // Runs `kernel` once per thread. Throws DeviceError for divergent barriers and collectives.
  void run(Dim3 size, std::size_t dynamic_bytes, Order order, const std::function<void()>& kernel);

  // For the threads.
  void barrier(Site site);
  const std::byte* gather(const void* value, std::size_t bytes, Site site);  // [lane * kLaneBytes]
  void* shared(const void* key, std::size_t bytes);  // poisoned at first use in a block
  void* dynamic_shared() { return shared(this, dynamic_bytes_); }
  void copy_async(const AsyncCopy& copy);
  void commit_copies();
  void wait_copies(std::size_t in_flight);
  unsigned lane() const { return current_ % kWarp; }

 private:
  struct Thread {
    Fiber fiber;
    const unsigned* awaited = nullptr;  // goes on once *awaited differs from `seen`
    unsigned seen = 0;
    std::vector<AsyncCopy> copies;
    std::vector<std::size_t> groups;  // ends of committed groups in `copies`
    bool runnable() const { return !fiber.ended() && (!awaited || *awaited != seen); }
  };
  struct Warp {
    Rendezvous meeting;
    // Two buffers in turn: nobody can be in the next meeting but one before all have left this one.
    std::byte values[2][kWarp * kLaneBytes];
  };
  struct Shared {
    const void* key;
    std::unique_ptr<void, void (*)(void*)> memory;
  };

  void arrive(Rendezvous& meeting, unsigned expected, Site site);
  void resume(std::size_t thread);
  bool run_warp(std::size_t warp);
  void start(const std::function<void()>& kernel);
  [[noreturn]] void report_deadlock() const;
  [[noreturn]] void stop(const std::string& why);  // from a thread: ends the launch

  std::size_t dynamic_bytes_ = 0, threads_ = 0, current_ = 0;
  Order order_ = Order::forward;
  const std::function<void()>* kernel_ = nullptr;
  std::vector<std::unique_ptr<Thread>> pool_;  // kept from block to block with their stacks
  std::vector<Warp> warps_;
  std::vector<Shared> shared_;
  Rendezvous barrier_;
  std::string error_;
};

// The block that is running; blocks run one at a time.
Block& current_block();

// Runs a grid block by block in the order that set_order() or THALWEG_EMULATE_ORDER asks for.
void run_grid(Dim3 grid, Dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel);
void set_order(Order order);

}  // namespace emulate
}  // namespace thalweg::cuda
