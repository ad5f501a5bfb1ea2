#include "cuda/emulate/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif

// void thalweg_switch_stack(void** save, void* load): the callee-saved registers travel on the stack.
asm(R"(
.text
.hidden thalweg_switch_stack
.globl thalweg_switch_stack
.type thalweg_switch_stack, @function
thalweg_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size thalweg_switch_stack, .-thalweg_switch_stack
)");
extern "C" void thalweg_switch_stack(void** save, void* load);

namespace thalweg::cuda::emulate {
namespace {

constexpr std::size_t kGuardBytes = 4096;  // a stack that overflows faults here
constexpr int kSavedRegisters = 6;

Fiber* starting = nullptr;  // hands `this` to run(), which takes no argument

void announce_switch([[maybe_unused]] void** save, [[maybe_unused]] const void* bottom,
                     [[maybe_unused]] std::size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(save, bottom, bytes);
#endif
}

void complete_switch([[maybe_unused]] void* saved, [[maybe_unused]] const void** bottom,
                     [[maybe_unused]] std::size_t* bytes) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(saved, bottom, bytes);
#endif
}

}  // namespace

Fiber::Fiber() {
  void* memory = mmap(nullptr, kGuardBytes + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  mprotect(memory, kGuardBytes, PROT_NONE);
  stack_ = static_cast<char*>(memory) + kGuardBytes;
}

Fiber::~Fiber() { munmap(stack_ - kGuardBytes, kGuardBytes + kStackBytes); }

void Fiber::start(Entry entry, void* argument) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack_, kStackBytes);  // frames of a run that was abandoned
#endif
  entry_ = entry;
  argument_ = argument;
  ended_ = false;
  own_fake_stack_ = nullptr;
  // The frame that the first switch pops: registers, then the return address. One word more, so that
  // run() finds the stack aligned as after a call.
  auto* top = reinterpret_cast<std::uintptr_t*>(stack_ + kStackBytes) - 2;
  *top = reinterpret_cast<std::uintptr_t>(&Fiber::run);
  for (int i = 0; i < kSavedRegisters; ++i) *--top = 0;
  own_stack_pointer_ = top;
}

void Fiber::resume() {
  starting = this;
  announce_switch(&caller_fake_stack_, stack_, kStackBytes);
  thalweg_switch_stack(&caller_stack_pointer_, own_stack_pointer_);
  complete_switch(caller_fake_stack_, nullptr, nullptr);
}

void Fiber::pause() {
  leave_fiber(false);
  enter_fiber();
}

void Fiber::enter_fiber() { complete_switch(own_fake_stack_, &caller_bottom_, &caller_bytes_); }

void Fiber::leave_fiber(bool for_good) {
  announce_switch(for_good ? nullptr : &own_fake_stack_, caller_bottom_, caller_bytes_);
  thalweg_switch_stack(&own_stack_pointer_, caller_stack_pointer_);
}

void Fiber::run() {
  Fiber* fiber = starting;
  fiber->enter_fiber();
  fiber->entry_(fiber->argument_);
  fiber->ended_ = true;
  fiber->leave_fiber(true);
  __builtin_unreachable();
}

}  // namespace thalweg::cuda::emulate
