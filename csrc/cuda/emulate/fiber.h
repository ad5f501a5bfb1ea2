// A stack of its own for a piece of code that can pause: one CUDA thread of the emulation.
//
// Cooperative and single-threaded: resume() runs the fiber until it pauses or ends. x86-64 only. Why
// not ucontext: swapcontext() makes a system call for the signal mask at each switch, which is
// thirty times slower, and a block of 256 threads switches at each barrier and shuffle.
#pragma once

#include <cstddef>

namespace thalweg::cuda::emulate {

class Fiber {
 public:
  using Entry = void (*)(void* argument);

  Fiber();
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  void start(Entry entry, void* argument);  // forgets what it ran before, ended or not
  void resume();                            // until the next pause() or the end of entry
  void pause();                             // from inside: back to the caller of resume()
  bool ended() const { return ended_; }

 private:
  static void run();  // what a new stack returns into
  void enter_fiber();
  void leave_fiber(bool for_good);

  static constexpr std::size_t kStackBytes = 128 << 10;

  char* stack_;
  void* own_stack_pointer_ = nullptr;
  void* caller_stack_pointer_ = nullptr;
  Entry entry_ = nullptr;
  void* argument_ = nullptr;
  bool ended_ = true;

  // What AddressSanitizer has to be told at each switch.
  void* own_fake_stack_ = nullptr;
  void* caller_fake_stack_ = nullptr;
  const void* caller_bottom_ = nullptr;
  std::size_t caller_bytes_ = 0;
};

}  // namespace thalweg::cuda::emulate
