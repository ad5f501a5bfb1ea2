// Every operation ends in a launch: a typed record of what is about to run.
//
// A launch is a struct that owns its parameters by value, with
//   static constexpr const char* kName, or const char* name() const: the operation's name;
//   double flops() const, double bytes() const: both without running;
//   void run() const: runs it, any number of times;
//   template <class Fields> void visit(Fields& f) const: all that run() depends on and writes, as
//     f.read(view), f.write(view), f.write_range(begin, end) and f.number(name, value); the views are
//     members of the record, for a plan moves what they view;
//   optionally void follow(): takes over the addresses that the record keeps beside its views.
// Shapes, dtypes and aliasing have been checked before it is made, so run() fails for lack of memory
// or for a value that only memory holds. A launch runs at once, or an observer of its thread runs it:
// plan/plan.h records it, plan/profile.h times it.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>

#include "base/view.h"

namespace thalweg {

// What a launch says about itself, field by field.
class Fields {
 public:
  virtual ~Fields() = default;
  virtual void read(const View& view) = 0;
  virtual void write(const View& view) = 0;
  virtual void write_range(Extent range) = 0;
  virtual void number(const char* name, double value) = 0;

  void read(const std::optional<View>& view) {
    if (view) read(*view);
  }
  void write(const std::optional<View>& view) {
    if (view) write(*view);
  }
};

// A launch of any type.
class Launch {
 public:
  virtual ~Launch() = default;
  virtual const char* name() const = 0;
  virtual double flops() const = 0;
  virtual double bytes() const = 0;
  virtual void run() const = 0;
  virtual void visit(Fields& fields) const = 0;
  virtual std::unique_ptr<Launch> clone() const = 0;
  virtual void follow() = 0;
};

// Runs every launch of its thread while it is installed; launches inside that launch are its own.
class LaunchObserver {
 public:
  virtual ~LaunchObserver() = default;
  virtual void on(const Launch& launch) = 0;
};

extern thread_local LaunchObserver* launch_observer;

// Installs an observer, or none, until the end of the scope.
class Observing {
 public:
  explicit Observing(LaunchObserver* observer) : before_(launch_observer) { launch_observer = observer; }
  ~Observing() { launch_observer = before_; }
  Observing(const Observing&) = delete;
  Observing& operator=(const Observing&) = delete;

 private:
  LaunchObserver* before_;
};

template <class Record>
const char* launch_name(const Record& record) {
  if constexpr (requires { record.name(); })
    return record.name();
  else
    return Record::kName;
}

template <class Record>
class LaunchOf final : public Launch {
 public:
  explicit LaunchOf(const Record& record) : record_(record) {}
  const char* name() const override { return launch_name(record_); }
  double flops() const override { return record_.flops(); }
  double bytes() const override { return record_.bytes(); }
  void run() const override { record_.run(); }
  void visit(Fields& fields) const override { record_.visit(fields); }
  std::unique_ptr<Launch> clone() const override { return std::make_unique<LaunchOf>(record_); }
  void follow() override {
    if constexpr (requires(Record& record) { record.follow(); }) record_.follow();
  }

 private:
  Record record_;
};

template <class Record>
void launch(const Record& record) {
  if (launch_observer) [[unlikely]]
    return launch_observer->on(LaunchOf<Record>(record));
  record.run();
}

}  // namespace thalweg
