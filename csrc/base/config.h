// The project's macros. Everything else is C++.
#pragma once

// Namespace of the code compiled for one instruction set; `host` in files compiled once. Headers with
// such code open it as `inline namespace THALWEG_ISA`, so that `exp` is `avx2::exp` in AVX2 objects.
#ifndef THALWEG_ISA
#define THALWEG_ISA host
#endif

#ifdef __CUDACC__
#define THALWEG_HOST_DEVICE __host__ __device__
#else
#define THALWEG_HOST_DEVICE
#endif

// Rules and their mathematics: inlined into the loop that uses them, on every device.
#define THALWEG_RULE THALWEG_HOST_DEVICE inline __attribute__((always_inline))
