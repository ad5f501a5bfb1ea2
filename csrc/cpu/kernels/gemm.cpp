#include "cpu/kernels/table.h"

namespace thalweg::THALWEG_ISA {

void fill(GemmKernels&) {}

}  // namespace thalweg::THALWEG_ISA
