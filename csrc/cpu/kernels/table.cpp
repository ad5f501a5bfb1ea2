#include "cpu/kernels/table.h"

#define THALWEG_STRING_OF(name) #name
#define THALWEG_STRING(name) THALWEG_STRING_OF(name)

namespace thalweg::THALWEG_ISA {

Kernels make_kernels() {
  Kernels kernels;
  kernels.name = THALWEG_STRING(THALWEG_ISA);
  fill(kernels.elementwise);
  fill(kernels.dropout);
  fill(kernels.reduce);
  fill(kernels.softmax);
  fill(kernels.norm);
  fill(kernels.lrn);
  fill(kernels.pool);
  fill(kernels.gemm);
  fill(kernels.conv);
  fill(kernels.winograd);
  fill(kernels.optim);
  fill(kernels.limits);
  return kernels;
}

}  // namespace thalweg::THALWEG_ISA
