#include "cpu/kernels/table.h"
namespace thalweg::THALWEG_ISA {
void fill(OptimKernels&) {}
}  // namespace thalweg::THALWEG_ISA
