// Local response normalisation. Outputs have the layout of x: planes, or channels-last.
#pragma once

#include "base/view.h"
#include "cpu/lrn.h"

namespace thalweg::ops {

void check_local_response_norm(const char* op, const View& x, const cpu::LrnOptions& o);
void local_response_norm(const cpu::LrnOptions& o, const View& x, const View& y);
void local_response_norm_backward(const cpu::LrnOptions& o, const View& dy, const View& x, const View& dx);

}  // namespace thalweg::ops
