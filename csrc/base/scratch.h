// Memory for the length of a call that is not allocated in every call: what a thread gave back last.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace thalweg {
namespace detail {

struct Spare {
  std::unique_ptr<std::byte[]> bytes;
  std::size_t size = 0;
};
inline constexpr std::size_t kSpares = 8, kSpareBytes = 1 << 20;  // kept by a thread; of one

inline std::vector<Spare>& spares() {
  thread_local std::vector<Spare> kept = [] {
    std::vector<Spare> room;
    room.reserve(kSpares);
    return room;
  }();
  return kept;
}

}  // namespace detail

// n uninitialised elements of a type without constructors.
template <class T>
class Scratch {
 public:
  explicit Scratch(std::int64_t n) {
    auto& spares = detail::spares();
    if (!spares.empty()) {
      own_ = std::move(spares.back());
      spares.pop_back();
    }
    const std::size_t size = static_cast<std::size_t>(n) * sizeof(T);
    if (own_.size < size) own_ = {std::unique_ptr<std::byte[]>(new std::byte[size]), size};
  }
  ~Scratch() {
    auto& spares = detail::spares();
    if (spares.size() < detail::kSpares && own_.size <= detail::kSpareBytes)
      spares.push_back(std::move(own_));
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* get() const { return reinterpret_cast<T*>(own_.bytes.get()); }
  T& operator[](std::int64_t i) const { return get()[i]; }

 private:
  detail::Spare own_;
};

}  // namespace thalweg
