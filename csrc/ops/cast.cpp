#include "ops/cast.h"

#include "base/half.h"
#include "plan/device.h"
#include "plan/launch.h"

namespace thalweg::ops {
namespace {

// f(T{}) for the C++ type of an element that is no half.
template <class F>
void with_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::f32:
      return f(float{});
    case DType::f64:
      return f(double{});
    case DType::i32:
      return f(std::int32_t{});
    case DType::i64:
      return f(std::int64_t{});
    case DType::u8:
      return f(std::uint8_t{});
    case DType::boolean:
      return f(bool{});
    default:
      fail<TypeError>("cast: x is ", dtype, ", expected float32, float64, integers or bool");
  }
}

// Calls f(element of x) for all elements in C order.
template <class T, class F>
void for_elements(const View& x, int axis, const T* at, const F& f) {
  if (axis == x.rank) return f(*at);
  for (std::int64_t i = 0; i < x.shape[axis]; ++i) for_elements(x, axis + 1, at + i * x.strides[axis], f);
}

struct CastLaunch {
  static constexpr const char* kName = "cast";
  View x, y;

  double flops() const { return 0; }
  double bytes() const { return x.bytes() + y.bytes(); }
  void run() const {
    with_type(x.dtype, [&]<class From>(From) {
      with_type(y.dtype, [&]<class To>(To) {
        To* next = y.as<To>();
        for_elements(x, 0, x.as<const From>(), [&](From value) {
          if constexpr (std::is_same_v<To, bool>)
            *next++ = value != From(0);
          else
            *next++ = static_cast<To>(value);
        });
      });
    });
  }
  void visit(Fields& f) const {
    f.read(x);
    f.write(y);
  }
};

}  // namespace

void cast(const View& x, const View& y) {
  refuse_cuda("cast", x);
  with_type(x.dtype, [](auto) {});
  check_same_shape("cast", "y", y, "x", x);
  launch(CastLaunch{x, y});
}

}  // namespace thalweg::ops
