#include "plan/plan.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>
#include <sstream>

namespace thalweg {

thread_local LaunchObserver* launch_observer = nullptr;

namespace {

constexpr unsigned char kPoison = 0xff;  // NaN in every float

std::vector<Extent> merged(std::vector<Extent> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](Extent a, Extent b) { return a.begin < b.begin; });
  std::vector<Extent> result;
  for (const Extent range : ranges) {
    if (!result.empty() && range.begin <= result.back().end)
      result.back().end = std::max(result.back().end, range.end);
    else
      result.push_back(range);
  }
  return result;
}

bool covers(const std::vector<Extent>& ranges, Extent wanted) {
  return std::any_of(ranges.begin(), ranges.end(),
                     [&](Extent range) { return range.begin <= wanted.begin && wanted.end <= range.end; });
}

std::size_t length(Extent range) { return static_cast<std::size_t>(range.end - range.begin); }

// Equal bits: NaN equals itself, 0 differs from -0.
bool same_number(double a, double b) {
  return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
}

template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream stream;
  (stream << ... << parts);
  return stream.str();
}

bool same_layout(const View& a, const View& b) {
  return a.dtype == b.dtype && same_shape(a, b) && std::equal(a.strides, a.strides + a.rank, b.strides);
}

}  // namespace

// Takes down what one launch says about itself.
class Plan::Recorder final : public Fields {
 public:
  Recorder(const Plan& plan, Entry& entry) : plan_(plan), entry_(entry) {}
  using Fields::read;
  using Fields::write;
  // The record is the plan's own, so that its views may be written to.
  void read(const View& view) override { add(view, extent(view), false, const_cast<View*>(&view)); }
  void write(const View& view) override { add(view, extent(view), true, const_cast<View*>(&view)); }
  void write_range(Extent range) override {
    View bytes = contiguous_view(reinterpret_cast<void*>(range.begin), DType::u8,
                                 std::initializer_list<std::intptr_t>{range.end - range.begin});
    add(bytes, range, true, nullptr);
  }
  void number(const char* name, double value) override { entry_.numbers.push_back({name, value}); }

 private:
  void add(const View& view, Extent range, bool written, View* live) {
    const Block* block = range.begin == range.end ? nullptr : plan_.find(range);
    const auto base = reinterpret_cast<std::intptr_t>(view.data);
    if (!block)
      entry_.accesses.push_back({Memory::state, written, 0, range.begin == range.end ? 0 : base, view, live});
    else
      entry_.accesses.push_back(
          {block->memory, written, block->index, base - block->range.begin, view, live});
  }

  const Plan& plan_;
  Entry& entry_;
};

int Plan::declare(Memory memory, const View& view) {
  const Extent range = extent(view);
  if (range.begin == range.end) return -1;
  if (memory == Memory::state) {
    declared_.push_back(range);
    return -1;
  }
  Block block{memory, counts_[static_cast<int>(memory)]++, range, {}};
  if (memory == Memory::constant) {
    block.contents.resize(length(range));
    std::memcpy(block.contents.data(), view.data, length(range));
  }
  const int index = block.index;
  blocks_.insert_or_assign(range.begin, std::move(block));
  return index;
}

void Plan::on(const Launch& launch) {
  const Observing outer(outer_);
  Entry entry{launch.clone(), {}, {}};
  Recorder recorder(*this, entry);
  entry.launch->visit(recorder);
  entries_.push_back(std::move(entry));
  if (outer_)
    outer_->on(launch);
  else
    launch.run();
}

const Plan::Block* Plan::find(Extent range) const {
  auto at = blocks_.upper_bound(range.begin);
  if (at == blocks_.begin()) return nullptr;
  const Block& block = (--at)->second;
  return range.end <= block.range.end ? &block : nullptr;
}

std::vector<Extent> Plan::written_state() const {
  std::vector<Extent> ranges;
  for (const Entry& entry : entries_)
    for (const Access& access : entry.accesses)
      if (access.memory == Memory::state && access.written && access.view.elements() != 0)
        ranges.push_back(extent(access.view));
  return merged(std::move(ranges));
}

std::vector<Extent> Plan::known_state() const {
  std::vector<Extent> ranges = written_state();
  ranges.insert(ranges.end(), declared_.begin(), declared_.end());
  return merged(std::move(ranges));
}

std::optional<std::string> Plan::problem() const {
  const std::vector<Extent> known = known_state();
  for (const Entry& entry : entries_) {
    for (const Access& access : entry.accesses) {
      if (access.view.device != Device::cpu)
        return text(entry.launch->name(), " works on a GPU; steps are captured on the CPU only");
      if (access.written && access.memory == Memory::input)
        return text(entry.launch->name(), " writes into an argument of the step; write into a copy");
      if (access.written || access.memory != Memory::state || access.view.elements() == 0) continue;
      if (!covers(known, extent(access.view)))
        return text(entry.launch->name(), " reads an array of shape ", Shape{access.view},
                    " that no recorded operation wrote: it is neither an argument, a parameter, a buffer "
                    "nor read-only, so a replay could find it stale; compute it with thalweg's "
                    "operations, pass it as an argument, or make it read-only with setflags(write=False)");
    }
  }
  return std::nullopt;
}

bool Plan::same_place(const Access& a, const Access& b, const Plan& other) const {
  if (a.memory != b.memory || a.written != b.written || a.index != b.index || a.place != b.place)
    return false;
  if (a.memory != Memory::constant) return true;
  const auto contents = [&](const Plan& plan) {
    for (const auto& [begin, block] : plan.blocks_)
      if (block.memory == Memory::constant && block.index == a.index) return block.contents;
    return std::vector<std::byte>{};
  };
  return contents(*this) == contents(other);
}

std::optional<std::string> Plan::difference(std::size_t at, const Plan& other) const {
  const Entry &one = entries_[at], &two = other.entries_[at];
  const std::string name = one.launch->name();
  if (name != two.launch->name() || one.accesses.size() != two.accesses.size() ||
      one.numbers.size() != two.numbers.size())
    return text("launch ", at, " was ", name, " in one step and ", two.launch->name(),
                " in the next: the step branches on something that changes");
  for (std::size_t i = 0; i < one.numbers.size(); ++i)
    if (!same_number(one.numbers[i].value, two.numbers[i].value))
      return text(name, ": ", one.numbers[i].name, " was ", one.numbers[i].value, " in one step and ",
                  two.numbers[i].value, " in the next; a replay would keep it. Pass it as an array argument");
  for (std::size_t i = 0; i < one.accesses.size(); ++i) {
    const Access &a = one.accesses[i], &b = two.accesses[i];
    if (!same_layout(a.view, b.view))
      return text(name, ": its operands were laid out as ", Shape{a.view}, " in one step and ", Shape{b.view},
                  " in the next");
    if (!same_place(a, b, other))
      return text(name, a.memory == Memory::constant
                            ? " uses a number that was another one in the next step; a replay would keep it. "
                              "Pass it as an array argument"
                            : " works on other memory in the next step: an array that lives across steps was "
                              "replaced");
  }
  return std::nullopt;
}

std::optional<std::string> Plan::difference(const Plan& other) const {
  for (std::size_t at = 0; at < std::min(entries_.size(), other.entries_.size()); ++at)
    if (auto found = difference(at, other)) return found;
  if (entries_.size() == other.entries_.size()) return std::nullopt;
  const Plan& longer = entries_.size() > other.entries_.size() ? *this : other;
  return text(longer.entries_[std::min(entries_.size(), other.entries_.size())].launch->name(),
              " ran in one of two steps only: the step branches on something that changes");
}

// Those of memory that could be moved.
template <class F>
void Plan::for_each_access(const F& f) const {
  for (std::size_t at = 0; at < entries_.size(); ++at)
    for (const Access& access : entries_[at].accesses)
      if (access.live && access.memory != Memory::state) f(at, access);
}

void Plan::settle(const std::vector<bool>& owned, const std::vector<bool>& bound) {
  const auto moves = [&](const auto& part) {  // a block or an access
    const auto index = static_cast<std::size_t>(part.index);
    return (part.memory == Memory::made && !owned[index]) || (part.memory == Memory::input && bound[index]);
  };
  std::vector<Lifetime> lifetimes(owned.size());
  arguments_.resize(bound.size());
  for (const auto& [begin, block] : blocks_) {
    if (!moves(block)) continue;
    left_.push_back(block.range);
    if (block.memory == Memory::made)
      lifetimes[static_cast<std::size_t>(block.index)].bytes = length(block.range);
  }
  for_each_access([&](std::size_t at, const Access& access) {
    if (!moves(access)) return;
    if (access.memory == Memory::made) return lifetimes[static_cast<std::size_t>(access.index)].include(at);
    Argument& argument = arguments_[static_cast<std::size_t>(access.index)];
    argument.views.emplace_back(access.live, access.place);
    argument.launches.push_back(entries_[at].launch.get());
  });
  arena_bytes_ = place(lifetimes);
  arena_ = allocate(arena_bytes_);
  for_each_access([&](std::size_t, const Access& access) {
    if (access.memory == Memory::made && moves(access))
      access.live->data =
          arena_.get() + lifetimes[static_cast<std::size_t>(access.index)].offset + access.place;
  });
  for (const Entry& entry : entries_) entry.launch->follow();
}

void Plan::bind(int index, void* data) {
  Argument& argument = arguments_[static_cast<std::size_t>(index)];
  if (argument.data == data) return;
  for (const auto& [view, place] : argument.views) view->data = static_cast<std::byte*>(data) + place;
  for (Launch* launch : argument.launches) launch->follow();
  argument.data = data;
}

void Plan::poison() const {
  for (const Extent range : left_) std::memset(reinterpret_cast<void*>(range.begin), kPoison, length(range));
}

bool Plan::is_poisoned() const {
  return std::all_of(left_.begin(), left_.end(), [](Extent range) {
    const auto* first = reinterpret_cast<const unsigned char*>(range.begin);
    return std::all_of(first, first + length(range), [](unsigned char byte) { return byte == kPoison; });
  });
}

std::size_t Plan::made_bytes() const {
  std::size_t bytes = 0;
  for (const auto& [begin, block] : blocks_)
    if (block.memory == Memory::made) bytes += length(block.range);
  return bytes;
}

void Plan::run(std::size_t begin, std::size_t end) const {
  for (std::size_t at = begin; at < end; ++at) {
    if (launch_observer) [[unlikely]]
      launch_observer->on(*entries_[at].launch);
    else
      entries_[at].launch->run();
  }
}

std::vector<std::byte> Plan::save() const {
  std::vector<std::byte> contents;
  for (const Extent range : written_state()) {
    const auto* first = reinterpret_cast<const std::byte*>(range.begin);
    contents.insert(contents.end(), first, first + length(range));
  }
  return contents;
}

void Plan::restore(const std::vector<std::byte>& contents) const {
  const std::byte* from = contents.data();
  for (const Extent range : written_state()) {
    std::memcpy(reinterpret_cast<void*>(range.begin), from, length(range));
    from += length(range);
  }
}

}  // namespace thalweg
