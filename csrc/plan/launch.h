// Every operation ends in a launch: a typed record of what is about to run.
//
// A launch is a struct with `static constexpr const char* kName`, `double flops() const`,
// `double bytes() const` (both without running) and `void run() const`. Shapes, dtypes and aliasing
// have been checked before it is made, so run() cannot fail but for memory. Today a launch runs at
// once, or runs at once under an observer; recording it into a plan and replaying it later needs
// nothing else than this record, since it owns all of its parameters by value.
#pragma once

namespace thalweg {

struct LaunchCost {
  const char* name;
  double flops, bytes;
};

// Sees every launch of this thread while it is installed.
class LaunchObserver {
 public:
  virtual ~LaunchObserver() = default;
  virtual void before(const LaunchCost& cost) = 0;
  virtual void after(const LaunchCost& cost) = 0;
};

extern thread_local LaunchObserver* launch_observer;

template <class Launch>
void launch(const Launch& record) {
  if (launch_observer) [[unlikely]] {
    const LaunchCost cost{Launch::kName, record.flops(), record.bytes()};
    launch_observer->before(cost);
    record.run();
    launch_observer->after(cost);
    return;
  }
  record.run();
}

}  // namespace thalweg
