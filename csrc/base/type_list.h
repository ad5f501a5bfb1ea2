// Lists of types (rules, activations) from which tables, kernels and bindings are generated.
#pragma once

#include <cstddef>

namespace thalweg {

template <class... Ts>
struct TypeList {
  static constexpr std::size_t size = sizeof...(Ts);

  // f.template operator()<T>() for every T in order.
  template <class F>
  static constexpr void for_each(F&& f) {
    (f.template operator()<Ts>(), ...);
  }
};

// The names of a rule's element-wise states, in order.
template <int N>
struct StateNames {
  static constexpr int size = N;
  const char* names[N];
};
template <>
struct StateNames<0> {
  static constexpr int size = 0;
  static constexpr const char* const* names = nullptr;
};

}  // namespace thalweg
