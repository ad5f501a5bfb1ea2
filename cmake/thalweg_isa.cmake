# thalweg_isa(name SOURCES files… FLAGS flags…): an OBJECT library, all code in thalweg::<name>.
function(thalweg_isa name)
  cmake_parse_arguments(ISA "" "" "SOURCES;FLAGS" ${ARGN})
  add_library(thalweg_${name} OBJECT ${ISA_SOURCES})
  target_include_directories(thalweg_${name} PRIVATE csrc)
  target_compile_definitions(thalweg_${name} PRIVATE THALWEG_ISA=${name})
  thalweg_flags(thalweg_${name})
  target_compile_options(thalweg_${name} PRIVATE ${ISA_FLAGS})
  set(THALWEG_ISAS ${THALWEG_ISAS} ${name} PARENT_SCOPE)
endfunction()

# thalweg_guard(target): a release link fails when an ISA object defines a symbol outside its
# namespace. The linker would keep one copy of such a symbol for all ISAs: an AVX-512 copy that
# crashes an old CPU, or a baseline copy that slows a new one unnoticed.
function(thalweg_guard target)
  if(NOT CMAKE_BUILD_TYPE STREQUAL "Release" OR THALWEG_SANITIZE)
    return()
  endif()
  foreach(isa IN LISTS THALWEG_ISAS)
    add_custom_command(TARGET ${target} PRE_LINK VERBATIM COMMAND
      ${CMAKE_COMMAND} -DNM=${CMAKE_NM} -DISA=${isa} "-DOBJECTS=$<TARGET_OBJECTS:thalweg_${isa}>"
      -P ${PROJECT_SOURCE_DIR}/cmake/symbol_guard.cmake)
  endforeach()
endfunction()
