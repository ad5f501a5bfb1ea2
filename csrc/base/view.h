// A view of somebody's array: pointer, dtype, shape and strides. It owns nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <ostream>

#include "base/dtype.h"
#include "base/error.h"

namespace thalweg {

enum class Device : std::uint8_t { cpu, cuda };

inline constexpr int kMaxRank = 8;

struct View {
  void* data = nullptr;
  DType dtype = DType::f32;
  Device device = Device::cpu;
  bool writable = false;
  int rank = 0;
  std::int64_t shape[kMaxRank] = {};
  std::int64_t strides[kMaxRank] = {};  // in elements

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }

  std::int64_t elements() const {
    std::int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= shape[i];
    return n;
  }

  double bytes() const { return static_cast<double>(elements() * size_of(dtype)); }

  bool contiguous() const {  // C order; extents of 1 have no say
    std::int64_t expected = 1;
    for (int i = rank - 1; i >= 0; --i) {
      if (shape[i] != 1 && strides[i] != expected) return elements() == 0;
      expected *= shape[i];
    }
    return true;
  }
};

inline bool same_shape(const View& a, const View& b) {
  if (a.rank != b.rank) return false;
  for (int i = 0; i < a.rank; ++i)
    if (a.shape[i] != b.shape[i]) return false;
  return true;
}

// Prints a shape as Python does: (), (3,), (4, 3).
struct Shape {
  const View& view;
};
inline std::ostream& operator<<(std::ostream& os, Shape s) {
  os << '(';
  for (int i = 0; i < s.view.rank; ++i) os << (i ? ", " : "") << s.view.shape[i];
  return os << (s.view.rank == 1 ? ",)" : ")");
}

// First and one-past-last byte that the view can touch.
struct Extent {
  std::intptr_t begin, end;
};
inline Extent extent(const View& v) {
  const auto base = reinterpret_cast<std::intptr_t>(v.data);
  if (v.elements() == 0) return {base, base};
  std::int64_t low = 0, high = 0;
  for (int i = 0; i < v.rank; ++i) {
    const std::int64_t reach = (v.shape[i] - 1) * v.strides[i];
    (reach < 0 ? low : high) += reach;
  }
  const std::int64_t item = size_of(v.dtype);
  return {base + low * item, base + (high + 1) * item};
}

inline bool overlaps(const View& a, const View& b) {
  const Extent x = extent(a), y = extent(b);
  return x.begin < y.end && y.begin < x.end;
}

// The same elements in the same places: an output that may be an element-wise input.
inline bool identical(const View& a, const View& b) {
  if (a.data != b.data || a.dtype != b.dtype || !same_shape(a, b)) return false;
  for (int i = 0; i < a.rank; ++i)
    if (a.shape[i] > 1 && a.strides[i] != b.strides[i]) return false;
  return true;
}

// An output in which two indices name one element (stride 0) would be written twice. Exact for
// zero strides; views that fold onto themselves in other ways are refused too.
inline bool overlaps_itself(const View& v) {
  std::int64_t reach = 0;  // strides sorted by size must each clear what lies below
  bool used[kMaxRank] = {};
  for (int n = 0; n < v.rank; ++n) {
    int smallest = -1;
    for (int i = 0; i < v.rank; ++i) {
      if (used[i] || v.shape[i] <= 1) continue;
      const auto size = [&](int k) { return v.strides[k] < 0 ? -v.strides[k] : v.strides[k]; };
      if (smallest < 0 || size(i) < size(smallest)) smallest = i;
    }
    if (smallest < 0) break;
    used[smallest] = true;
    const std::int64_t stride = v.strides[smallest] < 0 ? -v.strides[smallest] : v.strides[smallest];
    if (stride <= reach) return v.elements() > 1;
    reach += (v.shape[smallest] - 1) * stride;
  }
  return false;
}

// A C-contiguous view of `data`.
template <class Extents>
View contiguous_view(void* data, DType dtype, const Extents& extents) {
  View v;
  v.data = data;
  v.dtype = dtype;
  v.writable = true;
  for (const auto n : extents) v.shape[v.rank++] = static_cast<std::int64_t>(n);
  std::int64_t stride = 1;
  for (int i = v.rank - 1; i >= 0; --i) {
    v.strides[i] = stride;
    stride *= v.shape[i];
  }
  return v;
}

// --- checks that ops share -----------------------------------------------------------------

inline void check_float(const char* op, const char* name, const View& v) {
  if (v.dtype != DType::f32 && v.dtype != DType::f64)
    fail<TypeError>(op, ": ", name, " must be float32 or float64, got ", v.dtype);
}

inline void check_same_device(const char* op, const char* name, const View& v, const char* other_name,
                              const View& other) {
  if (v.device != other.device)
    fail<DeviceError>(op, ": ", name, " is ", v.device == Device::cuda ? "on a GPU" : "in host memory",
                      " but ", other_name, " is not; move one of them");
}

// The operands of a call share dtype and device.
inline void check_same_dtype(const char* op, const char* name, const View& v, const char* other_name,
                             const View& other) {
  check_same_device(op, name, v, other_name, other);
  if (v.dtype != other.dtype)
    fail<TypeError>(op, ": ", name, " is ", v.dtype, " but ", other_name, " is ", other.dtype,
                    "; convert one of them");
}

inline void check_same_shape(const char* op, const char* name, const View& v, const char* other_name,
                             const View& other) {
  if (!same_shape(v, other))
    fail<ValueError>(op, ": ", name, " has shape ", Shape{v}, ", expected ", Shape{other}, " like ",
                     other_name);
}

inline void check_rank(const char* op, const char* name, const View& v, int rank) {
  if (v.rank != rank)
    fail<ValueError>(op, ": ", name, " must have ", rank, rank == 1 ? " dimension" : " dimensions",
                     ", got shape ", Shape{v});
}

inline void check_length(const char* op, const char* name, const View& v, std::int64_t length) {
  if (v.rank != 1 || v.shape[0] != length)
    fail<ValueError>(op, ": ", name, " must have shape (", length, ",), got ", Shape{v});
}

inline void check_contiguous(const char* op, const char* name, const View& v) {
  if (!v.contiguous())
    fail<ValueError>(op, ": ", name, " must be C-contiguous; pass numpy.ascontiguousarray(", name, ")");
}

inline void check_output(const char* op, const char* name, const View& v) {
  if (!v.writable) fail<ValueError>(op, ": ", name, " is read-only");
  if (overlaps_itself(v))
    fail<ValueError>(op, ": ", name, " overlaps itself (a stride is 0 or too small); pass a plain array");
}

}  // namespace thalweg
