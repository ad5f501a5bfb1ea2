// Scratch memory of matrix products: kept by each calling thread and used again, so that a training
// step allocates once. All of it is reserved before the first result is written.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>

#include "base/memory.h"

namespace thalweg {

class GemmWorkspace {
 public:
  // Room for what all threads share and for `slots` parts, one for each thread at work.
  void reserve(std::size_t shared_bytes, std::size_t slot_bytes, int slots) {
    shared_bytes = round_up(shared_bytes);
    slot_bytes_ = round_up(slot_bytes);
    slots_ = slots;
    const std::size_t bytes = shared_bytes + slot_bytes_ * static_cast<std::size_t>(slots);
    if (bytes > capacity_) {
      memory_.reset();
      capacity_ = 0;
      memory_ = allocate(bytes, kPage);
      capacity_ = bytes;
    }
    first_slot_ = memory_.get() + shared_bytes;
  }

  std::byte* shared() const { return memory_.get(); }

  // A slot for the lifetime of this object. There are as many slots as threads; if the number of
  // threads was raised meanwhile, the late ones wait for their turn.
  class Slot {
   public:
    explicit Slot(GemmWorkspace& workspace) : workspace_(workspace), index_(workspace.claim()) {}
    ~Slot() { workspace_.taken_[index_].clear(std::memory_order_release); }
    Slot(const Slot&) = delete;
    Slot& operator=(const Slot&) = delete;
    std::byte* data() const {
      return workspace_.first_slot_ + workspace_.slot_bytes_ * static_cast<std::size_t>(index_);
    }

   private:
    GemmWorkspace& workspace_;
    int index_;
  };

 private:
  static constexpr std::size_t kPage = 4096;
  static constexpr int kMaxSlots = 1024;

  static std::size_t round_up(std::size_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

  int claim() {
    for (;;) {
      for (int i = 0; i < slots_; ++i)
        if (!taken_[i].test_and_set(std::memory_order_acquire)) return i;
      std::this_thread::yield();
    }
  }

  Bytes memory_;
  std::size_t capacity_ = 0, slot_bytes_ = 0;
  std::byte* first_slot_ = nullptr;
  int slots_ = 0;
  std::atomic_flag taken_[kMaxSlots];
};

}  // namespace thalweg
