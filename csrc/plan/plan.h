// A plan: the launches of one training step, recorded while they ran, to be run again in one call.
//
// What a replay does is what the recorded step did, with other contents of the same memory. That is
// right only if nothing that changes from step to step was frozen into a launch or computed beside
// them, so a plan knows where every byte that a launch reads comes from. Memory is
//   made      allocated by an operation while recording, so written by a launch of the plan,
//   input     one of the step's arguments: copied in before each replay,
//   constant  made by this library from numbers alone, kept with its contents at that time,
//   state     anything else, by address: allowed if a launch of the plan writes it (parameters, running
//             statistics, optimizer states), or if it was declared (frozen parameters, buffers,
//             counters, arrays that nobody can write to).
// Any other read is refused by the operation's name: its contents came from Python.
//
// Numbers in a launch's record are compared between two recordings of consecutive steps, and so are
// constants, shapes, and which memory is read and written, up to a renaming of what was made. What
// differs is refused by name; what is equal twice and different later is the caller's business (it keeps
// modules, hyperparameters, threads and ISA in the plan's key).
//
// Two kinds of memory are moved once a recording is good. What was made and has no owner outside the
// plan (a loss has one, a gradient, an array that a closure keeps) goes into one arena, where blocks
// share bytes if their lifetimes, first to last launch, are apart (plan/lifetimes.h). Arguments are
// read where the caller has them. The memory they had before is poisoned, the first replay has to give
// the recorded bits and to leave the poison alone: a record that kept an address would be found out.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "plan/launch.h"
#include "plan/lifetimes.h"

namespace thalweg {

class Plan final : public LaunchObserver {
 public:
  enum class Memory : std::uint8_t { made, input, constant, state };

  // Returns its index among those of its kind, -1 for state and for no memory. Constants: contiguous.
  int declare(Memory memory, const View& view);
  // Records, and runs under the observer that was there before.
  void start() { outer_ = launch_observer, launch_observer = this; }
  void stop() { launch_observer = outer_; }
  void on(const Launch& launch) override;

  // After recording: why the plan cannot be replayed, as far as one recording shows.
  std::optional<std::string> problem() const;
  // Why it cannot, as far as two recordings of different steps show.
  std::optional<std::string> difference(const Plan& other) const;

  // Moves the made memory that `owned` is false for into an arena, and prepares the arguments that
  // `bound` is true for to be moved; both by index.
  void settle(const std::vector<bool>& owned, const std::vector<bool>& bound);
  // Lets the launches read argument `index` from `data`.
  void bind(int index, void* data);
  // Poisons the memory that was moved elsewhere; whether it still is.
  void poison() const;
  bool is_poisoned() const;
  // It may be freed now.
  void leave() { left_.clear(); }

  void run(std::size_t begin, std::size_t end) const;  // launches
  std::size_t size() const { return entries_.size(); }
  std::size_t made_bytes() const;  // as recorded
  std::size_t arena_bytes() const { return arena_bytes_; }

  // The contents of all state that the plan writes, and back: for checking a replay.
  std::vector<std::byte> save() const;
  void restore(const std::vector<std::byte>& contents) const;

 private:
  struct Block {
    Memory memory;
    int index;  // among those of its kind
    Extent range;
    std::vector<std::byte> contents;  // of constants
  };
  struct Access {
    Memory memory;
    bool written;
    int index;            // of the block
    std::intptr_t place;  // offset in the block; the address for state
    View view;            // shape, strides and dtype
    View* live;           // in the launch; null for a range
  };
  struct Argument {
    void* data = nullptr;
    std::vector<std::pair<View*, std::intptr_t>> views;  // and their offsets
    std::vector<Launch*> launches;
  };

  struct Number {
    const char* name;
    double value;
  };
  struct Entry {
    std::unique_ptr<Launch> launch;
    std::vector<Access> accesses;
    std::vector<Number> numbers;
  };
  class Recorder;

  const Block* find(Extent range) const;
  template <class F>
  void for_each_access(const F& f) const;
  std::vector<Extent> known_state() const;
  std::vector<Extent> written_state() const;
  std::optional<std::string> difference(std::size_t at, const Plan& other) const;
  bool same_place(const Access& a, const Access& b, const Plan& other) const;

  LaunchObserver* outer_ = nullptr;
  std::map<std::intptr_t, Block> blocks_;  // by first byte
  int counts_[4] = {};
  std::vector<Extent> declared_;
  std::vector<Entry> entries_;
  std::vector<Argument> arguments_;
  Bytes arena_;
  std::size_t arena_bytes_ = 0;
  std::vector<Extent> left_;  // memory that was moved elsewhere
};

}  // namespace thalweg
