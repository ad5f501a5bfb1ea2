#include "cuda/emulate/block.h"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>

#include "base/error.h"

namespace thalweg::cuda::emulate {
namespace {

constexpr int kPoison = 0xff;  // a NaN in every float type, -1 in every integer

Order order_from_environment() {
  const char* name = std::getenv("THALWEG_EMULATE_ORDER");
  if (!name || !std::strcmp(name, "forward")) return Order::forward;
  if (!std::strcmp(name, "reverse")) return Order::reverse;
  fail<ValueError>("THALWEG_EMULATE_ORDER must be forward or reverse, got '", name, "'");
}

Order& order() {
  static Order current = order_from_environment();
  return current;
}

std::size_t nth(std::size_t i, std::size_t n, Order order) { return order == Order::forward ? i : n - 1 - i; }

Dim3 unflatten(std::size_t i, Dim3 size) {
  const auto index = static_cast<unsigned>(i);
  return {index % size.x, index / size.x % size.y, index / (size.x * size.y)};
}

bool same_site(const Site& a, const Site& b) {
  return a.line() == b.line() && a.column() == b.column() && !std::strcmp(a.file_name(), b.file_name());
}

std::string name_of(const Site& site) {
  const char* slash = std::strrchr(site.file_name(), '/');
  return std::string(slash ? slash + 1 : site.file_name()) + ":" + std::to_string(site.line());
}

}  // namespace

void Block::run(Dim3 size, std::size_t dynamic_bytes, Order order, const std::function<void()>& kernel) {
  blockDim = size;
  threads_ = size.volume();
  dynamic_bytes_ = dynamic_bytes;
  order_ = order;
  error_.clear();
  barrier_ = {};
  start(kernel);
  for (bool progress = true; progress;) {
    progress = false;
    for (std::size_t w = 0; w < warps_.size(); ++w)
      while (run_warp(nth(w, warps_.size(), order))) progress = true;
  }
  shared_.clear();
  for (std::size_t t = 0; t < threads_; ++t)
    if (!pool_[t]->fiber.ended()) report_deadlock();
}

void Block::start(const std::function<void()>& kernel) {
  kernel_ = &kernel;
  while (pool_.size() < threads_) pool_.push_back(std::make_unique<Thread>());
  warps_.assign(threads_ / kWarp, {});
  shared_.clear();
  for (std::size_t t = 0; t < threads_; ++t) {
    Thread& thread = *pool_[t];
    thread.awaited = nullptr;
    thread.copies.clear();
    thread.groups.clear();
    thread.fiber.start([](void* block) { (*static_cast<Block*>(block)->kernel_)(); }, this);
  }
}

bool Block::run_warp(std::size_t warp) {
  bool progress = false;
  for (unsigned lane = 0; lane < kWarp; ++lane) {
    const std::size_t thread = warp * kWarp + nth(lane, kWarp, order_);
    if (!pool_[thread]->runnable()) continue;
    resume(thread);
    progress = true;
  }
  return progress;
}

void Block::resume(std::size_t thread) {
  current_ = thread;
  threadIdx = unflatten(thread, blockDim);
  pool_[thread]->fiber.resume();
  if (!error_.empty()) throw DeviceError(error_);
}

void Block::arrive(Rendezvous& meeting, unsigned expected, Site site) {
  if (meeting.arrived == 0) meeting.site = site;
  if (!same_site(meeting.site, site))
    stop("divergence: thread " + std::to_string(current_) + " waits at " + name_of(site) +
         ", others wait at " + name_of(meeting.site));
  Thread& self = *pool_[current_];
  self.seen = meeting.generation;
  if (++meeting.arrived == expected) {
    meeting.arrived = 0;
    ++meeting.generation;
    return;
  }
  self.awaited = &meeting.generation;
  self.fiber.pause();
  self.awaited = nullptr;
}

void Block::barrier(Site site) { arrive(barrier_, static_cast<unsigned>(threads_), site); }

const std::byte* Block::gather(const void* value, std::size_t bytes, Site site) {
  Warp& warp = warps_[current_ / kWarp];
  std::byte* values = warp.values[warp.meeting.generation % 2];
  std::memcpy(values + lane() * kLaneBytes, value, bytes);
  arrive(warp.meeting, kWarp, site);
  return values;
}

void* Block::shared(const void* key, std::size_t bytes) {
  for (const Shared& existing : shared_)
    if (existing.key == key) return existing.memory.get();
  void* memory = nullptr;
  if (posix_memalign(&memory, 16, bytes) != 0) throw std::bad_alloc();
  std::memset(memory, kPoison, bytes);
  shared_.push_back({key, {memory, std::free}});
  return memory;
}

void Block::copy_async(const AsyncCopy& copy) { pool_[current_]->copies.push_back(copy); }

void Block::commit_copies() {
  Thread& self = *pool_[current_];
  self.groups.push_back(self.copies.size());
}

void Block::wait_copies(std::size_t in_flight) {
  Thread& self = *pool_[current_];
  if (self.groups.size() <= in_flight) return;
  const std::size_t landed_groups = self.groups.size() - in_flight;
  const std::size_t landed = self.groups[landed_groups - 1];
  for (std::size_t i = 0; i < landed; ++i) {
    const AsyncCopy& copy = self.copies[i];
    std::memset(copy.to, 0, copy.bytes);
    if (copy.valid) std::memcpy(copy.to, copy.from, copy.valid);
  }
  self.copies.erase(self.copies.begin(), self.copies.begin() + static_cast<std::ptrdiff_t>(landed));
  self.groups.erase(self.groups.begin(), self.groups.begin() + static_cast<std::ptrdiff_t>(landed_groups));
  for (std::size_t& end : self.groups) end -= landed;
}

void Block::stop(const std::string& why) {
  error_ = "emulated kernel, block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) +
           ", " + std::to_string(blockIdx.z) + "): " + why;
  for (;;) pool_[current_]->fiber.pause();
}

void Block::report_deadlock() const {
  std::size_t ended = threads_, waiting = threads_;
  for (std::size_t t = 0; t < threads_; ++t) (pool_[t]->fiber.ended() ? ended : waiting) = t;
  const Thread& thread = *pool_[waiting];
  const bool at_barrier = thread.awaited == &barrier_.generation;
  const Site& site = at_barrier ? barrier_.site : warps_[waiting / kWarp].meeting.site;
  const std::string rest = ended < threads_ ? "thread " + std::to_string(ended) + " has ended"
                                            : std::string("other threads wait elsewhere");
  fail<DeviceError>("emulated kernel: divergence: thread ", waiting, " waits at ", name_of(site),
                    " for ever, ", rest);
}

Block& current_block() {
  static Block block;
  return block;
}

void set_order(Order value) { order() = value; }

void run_grid(Dim3 grid, Dim3 block, std::size_t shared_bytes, const std::function<void()>& kernel) {
  constexpr std::size_t kMaxThreads = 1024, kMaxShared = 227 << 10;
  if (block.volume() == 0 || block.volume() > kMaxThreads || block.volume() % kWarp != 0)
    fail<DeviceError>("launch: a block has ", block.volume(),
                      " threads, expected a multiple of 32 up to 1024");
  if (grid.volume() == 0 || grid.y > 65535 || grid.z > 65535 || grid.x > 0x7fffffffu)
    fail<DeviceError>("launch: grid (", grid.x, ", ", grid.y, ", ", grid.z, ") is outside what a GPU takes");
  if (shared_bytes > kMaxShared)
    fail<DeviceError>("launch: ", shared_bytes, " bytes of shared memory, expected at most ", kMaxShared);

  static std::mutex one_grid_at_a_time;
  const std::lock_guard lock(one_grid_at_a_time);
  gridDim = grid;
  for (std::size_t i = 0; i < grid.volume(); ++i) {
    blockIdx = unflatten(nth(i, grid.volume(), order()), grid);
    current_block().run(block, shared_bytes, order(), kernel);
  }
}

}  // namespace thalweg::cuda::emulate
