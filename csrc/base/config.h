// The project's macros. Everything else is C++.
#pragma once

// Namespace of the code compiled for one instruction set; `host` in files compiled once.
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

// Headers with code that is compiled once per ISA open this namespace; their names are then used
// without the ISA: `thalweg::exp` is `thalweg::avx2::exp` inside the AVX2 objects.
#define THALWEG_ISA_NAMESPACE inline namespace THALWEG_ISA
