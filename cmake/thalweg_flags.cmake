# Flags that every C++ file of the project shares.
#
# Contraction is off everywhere: an FMA is written where it is meant, so that one rule gives the
# same bits on every instruction set. No errno and no traps: without them GCC does not vectorise
# square roots, divisions and selects.
function(thalweg_flags target)
  target_compile_options(${target} PRIVATE
    $<$<CONFIG:Release>:-O3> -ffp-contract=off -fno-math-errno -fno-trapping-math
    -Wall -Wextra -Wconversion -Wno-psabi
    $<$<BOOL:${THALWEG_WERROR}>:-Werror>)
  if(THALWEG_SANITIZE)
    target_compile_options(${target} PRIVATE -fsanitize=${THALWEG_SANITIZE} -fno-omit-frame-pointer -g)
    target_link_options(${target} PRIVATE -fsanitize=${THALWEG_SANITIZE})
  endif()
endfunction()
