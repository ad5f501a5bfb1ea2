// Times the launches of this thread.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "plan/launch.h"

namespace thalweg {

class Profile final : public LaunchObserver {
 public:
  struct Event {
    std::string name;
    double flops, bytes, start, seconds;  // start: since the profile was made
  };

  void on(const Launch& launch) override {
    const Observing nothing(nullptr);
    const double start = now();
    launch.run();
    events_.push_back({launch.name(), launch.flops(), launch.bytes(), start, now() - start});
  }
  const std::vector<Event>& events() const { return events_; }

 private:
  using Clock = std::chrono::steady_clock;
  double now() const { return std::chrono::duration<double>(Clock::now() - origin_).count(); }

  Clock::time_point origin_ = Clock::now();
  std::vector<Event> events_;
};

}  // namespace thalweg
