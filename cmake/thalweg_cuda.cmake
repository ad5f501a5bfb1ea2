# The CUDA half: extension modules of their own, whose tables _core takes as capsules.
#
#   _cuda           nvcc; THALWEG_CUDA=ON, or AUTO where nvcc and a driver are found
#   _cuda_emulated  the same sources by the host compiler, for tests, never installed;
#                   THALWEG_CUDA_EMULATED=ON instead
set(THALWEG_CUDA_SOURCES
  csrc/cuda/elementwise.cu
  csrc/cuda/reduce.cu
  csrc/cuda/softmax.cu
  csrc/cuda/norm.cu
  csrc/cuda/dropout.cu
  csrc/cuda/gemm.cu
  csrc/cuda/conv.cu
  csrc/cuda/pool.cu
  csrc/cuda/lrn.cu
  csrc/cuda/optim.cu)

# Sets THALWEG_WITH_CUDA.
function(thalweg_find_cuda)
  set(with OFF)
  if(NOT THALWEG_CUDA STREQUAL "OFF")
    find_program(THALWEG_NVCC nvcc HINTS ENV CUDA_HOME ENV CUDA_PATH /usr/local/cuda PATH_SUFFIXES bin)
    find_program(THALWEG_NVIDIA_SMI nvidia-smi)
    find_library(THALWEG_DRIVER NAMES cuda libcuda.so.1 PATHS /usr/local/nvidia/lib64)
    if(THALWEG_CUDA STREQUAL "ON" AND NOT THALWEG_NVCC)
      message(FATAL_ERROR "THALWEG_CUDA=ON needs nvcc, which was not found. Install the CUDA toolkit (13.0 or "
                          "later) and put nvcc on the PATH, or set CUDA_HOME; THALWEG_CUDA=OFF builds without.")
    endif()
    if(THALWEG_CUDA STREQUAL "ON" OR (THALWEG_NVCC AND (THALWEG_NVIDIA_SMI OR THALWEG_DRIVER)))
      set(with ON)
    endif()
  endif()
  set(THALWEG_WITH_CUDA ${with} PARENT_SCOPE)
endfunction()

# Contraction is off as everywhere: an FMA is written where it is meant.
macro(thalweg_add_cuda)  # a macro: a function cannot enable a language
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90a-real)  # 80 brings PTX, from which drivers compile for later GPUs
  endif()
  set(CMAKE_CUDA_COMPILER ${THALWEG_NVCC})
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake before 3.26 does not know that nvcc 12 does
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
  endif()
  pybind11_add_module(_cuda MODULE csrc/cuda/module.cpp ${THALWEG_CUDA_SOURCES})
  set_target_properties(_cuda PROPERTIES
    CUDA_STANDARD 20 CUDA_ARCHITECTURES "${CMAKE_CUDA_ARCHITECTURES}" CUDA_RUNTIME_LIBRARY Static
    CUDA_VISIBILITY_PRESET hidden)
  target_compile_options(_cuda PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:-fmad=false --expt-relaxed-constexpr -Xptxas=-v -Xcompiler=-ffp-contract=off>)
  find_package(CUDAToolkit REQUIRED)
  target_include_directories(_cuda PRIVATE ${CUDAToolkit_INCLUDE_DIRS})
  target_compile_definitions(_cuda PRIVATE THALWEG_CUDA_NAME="cuda")
  target_include_directories(_cuda PRIVATE csrc)
  if(THALWEG_IN_PLACE)
    set_target_properties(_cuda PROPERTIES LIBRARY_OUTPUT_DIRECTORY "${PROJECT_SOURCE_DIR}/python/thalweg")
  endif()
  install(TARGETS _cuda LIBRARY DESTINATION thalweg)
endmacro()

function(thalweg_add_cuda_emulated)
  set_source_files_properties(${THALWEG_CUDA_SOURCES} PROPERTIES LANGUAGE CXX)
  pybind11_add_module(_cuda_emulated MODULE NO_EXTRAS csrc/cuda/module.cpp ${THALWEG_CUDA_SOURCES}
    csrc/cuda/emulate/fiber.cpp csrc/cuda/emulate/block.cpp)
  thalweg_flags(_cuda_emulated)
  target_compile_options(_cuda_emulated PRIVATE -Wno-unknown-pragmas)
  target_compile_definitions(_cuda_emulated PRIVATE THALWEG_CUDA_EMULATED THALWEG_CUDA_NAME="emulated")
  target_include_directories(_cuda_emulated PRIVATE csrc)
endfunction()
