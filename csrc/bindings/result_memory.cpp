#include "bindings/result_memory.h"

#include <pybind11/numpy.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "base/memory.h"

namespace py = pybind11;

namespace thalweg::bindings {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr std::size_t kLarge = ~std::size_t{0};  // it has to see the end of every array
#else
constexpr std::size_t kLarge = std::size_t{64} << 10;  // the C library keeps smaller blocks itself
#endif
constexpr std::size_t kMostBlocks = 1024;  // kept

// Blocks that are in use and blocks that wait. All calls hold the interpreter lock.
class Blocks {
 public:
  Blocks() { kept_.reserve(kMostBlocks); }

  // Null if there is no room.
  std::byte* take(std::size_t bytes) try {
    const std::size_t size = size_class(bytes);
    Bytes memory = kept_of(size);
    if (!memory) memory = try_allocate(size);
    if (!memory && release_all() > 0) memory = try_allocate(size);
    if (!memory) return nullptr;
    used_.emplace(memory.get(), size);
    used_bytes_ += size;
    most_bytes_ = std::max(most_bytes_, used_bytes_);
    while (!kept_.empty() && used_bytes_ + kept_bytes_ > most_bytes_) release_oldest();
    return memory.release();
  } catch (const std::bad_alloc&) {
    return nullptr;
  }

  void give(std::byte* data) {
    const auto found = used_.find(data);
    const std::size_t size = found->second;
    used_.erase(found);
    used_bytes_ -= size;
    if (kept_.size() == kMostBlocks) release_oldest();
    kept_.push_back({size, Bytes(data)});
    kept_bytes_ += size;
    while (kept_bytes_ > kMostKept) release_oldest();
  }

  std::size_t size_of(std::byte* data) const { return used_.at(data); }

  std::size_t release_all() {
    const std::size_t bytes = kept_bytes_;
    kept_.clear();
    kept_bytes_ = 0;
    most_bytes_ = used_bytes_;
    return bytes;
  }

 private:
  struct Kept {
    std::size_t size;
    Bytes memory;
  };

  // Sizes that differ by less than an eighth share a class; huge pages are not cut.
  static std::size_t size_class(std::size_t bytes) {
    const std::size_t unit =
        std::max(bytes < 2 * kHugePage ? kCacheLine : kHugePage, std::bit_floor(bytes) / 8);
    return (bytes + unit - 1) / unit * unit;
  }

  // The block that was given last, parts of which may still be in some cache.
  Bytes kept_of(std::size_t size) {
    const auto found =
        std::find_if(kept_.rbegin(), kept_.rend(), [&](const Kept& k) { return k.size == size; });
    if (found == kept_.rend()) return nullptr;
    Bytes memory = std::move(found->memory);
    kept_.erase(std::next(found).base());
    kept_bytes_ -= size;
    return memory;
  }

  void release_oldest() {
    kept_bytes_ -= kept_.front().size;
    kept_.erase(kept_.begin());
  }

  static inline const std::size_t kMostKept =
      static_cast<std::size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE)) / 4;

  std::unordered_map<std::byte*, std::size_t> used_;
  std::vector<Kept> kept_;                                        // in the order in which they were given
  std::size_t used_bytes_ = 0, kept_bytes_ = 0, most_bytes_ = 0;  // most: used at once
};

Blocks& blocks() {
  static Blocks* const all = new Blocks;  // arrays may outlive every static
  return *all;
}

// --- as NumPy has it (its enhancement proposal 49) -------------------------------------------------
struct Handler {
  char name[127];
  std::uint8_t version;
  void* context;
  void* (*malloc)(void*, std::size_t);
  void* (*calloc)(void*, std::size_t, std::size_t);
  void* (*realloc)(void*, void*, std::size_t);
  void (*free)(void*, void*, std::size_t);
};

void* take(void*, std::size_t bytes) { return blocks().take(bytes); }

void give(void*, void* data, std::size_t) {
  if (data) blocks().give(static_cast<std::byte*>(data));
}

void* take_zeros(void*, std::size_t count, std::size_t size) {
  std::byte* const data = blocks().take(count * size);
  return data ? std::memset(data, 0, count * size) : nullptr;
}

void* move(void*, void* data, std::size_t bytes) {
  auto* const old = static_cast<std::byte*>(data);
  std::byte* const moved = blocks().take(bytes);
  if (moved && old) {
    std::memcpy(moved, old, std::min(bytes, blocks().size_of(old)));
    blocks().give(old);
  }
  return moved;
}

Handler handler{"thalweg", 1, nullptr, take, take_zeros, move, give};

// The entries of NumPy's table of C functions that pybind11 does not name.
struct NumPy {
  PyObject* (*set_handler)(PyObject*);
  PyObject* (*get_handler)();
  PyObject* default_handler;
  PyObject* our_handler;

  NumPy() {
    const py::object capsule = py::detail::import_numpy_core_submodule("multiarray").attr("_ARRAY_API");
    void** const table = static_cast<void**>(PyCapsule_GetPointer(capsule.ptr(), nullptr));
    set_handler = reinterpret_cast<PyObject* (*)(PyObject*)>(table[304]);
    get_handler = reinterpret_cast<PyObject* (*)()>(table[305]);
    default_handler = *static_cast<PyObject**>(table[306]);
    our_handler = PyCapsule_New(&handler, "mem_handler", nullptr);
    if (!our_handler) throw py::error_already_set();
  }
};

const NumPy& numpy() {
  static const NumPy* const table = new NumPy;
  return *table;
}

}  // namespace

ResultMemory::ResultMemory(std::size_t bytes) {
  if (bytes < kLarge) return;
  const auto current = py::reinterpret_steal<py::object>(numpy().get_handler());
  if (current.ptr() == numpy().default_handler)
    before_ = py::reinterpret_steal<py::object>(numpy().set_handler(numpy().our_handler));
}

ResultMemory::~ResultMemory() {
  if (before_) Py_XDECREF(numpy().set_handler(before_.ptr()));
}

std::size_t release_memory() { return blocks().release_all(); }

}  // namespace thalweg::bindings
