// Numbers that launches share with Python, in memory so that a replay finds their present values:
// step counts, batches seen, and what random numbers are a function of.
#pragma once

#include "base/view.h"

namespace thalweg::ops {

// TypeError unless v is `words` contiguous int64 in host memory.
void check_counter(const char* op, const char* name, const View& v, std::int64_t words = 1);

void advance(const View& counter);                      // counter += 1
void snapshot(const View& counters, const View& copy);  // copy = counters, now
void fill(const View& out, double value);               // float32 and float64

}  // namespace thalweg::ops
