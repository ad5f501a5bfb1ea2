// A C-contiguous stand-in for an input of any strides.
#pragma once

#include <cstddef>
#include <memory>
#include <vector>

#include "cpu/activation.h"
#include "cpu/elementwise.h"

namespace thalweg::cpu {

// The input itself where it is C-contiguous, else a copy that lives as long as this.
class Contiguous {
 public:
  explicit Contiguous(const View& v) : view_(v) {
    if (v.contiguous()) return;
    copy_.reset(new std::byte[static_cast<std::size_t>(v.bytes())]);
    view_ = contiguous_view(copy_.get(), v.dtype, std::vector<std::int64_t>(v.shape, v.shape + v.rank));
    unary(index_of<UnaryRules, Copy>(), 0, v, view_);
  }

  template <class T>
  const T* as() const {
    return view_.as<const T>();
  }

 private:
  View view_;
  std::unique_ptr<std::byte[]> copy_;
};

}  // namespace thalweg::cpu
