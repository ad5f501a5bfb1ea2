# cmake -DNM=… -DISA=avx2 -DOBJECTS="a.o;b.o" -P symbol_guard.cmake
# Fails when an object defines an external symbol outside namespace thalweg::<ISA>.
set(leaks "")
foreach(object IN LISTS OBJECTS)
  execute_process(COMMAND ${NM} --demangle --defined-only --extern-only ${object}
                  OUTPUT_VARIABLE symbols RESULT_VARIABLE status)
  if(NOT status EQUAL 0)
    message(FATAL_ERROR "symbol guard: ${NM} cannot read ${object}")
  endif()
  string(REPLACE ";" "," symbols "${symbols}")
  string(REPLACE "\n" ";" symbols "${symbols}")
  foreach(symbol IN LISTS symbols)
    # Templates print their return type first, so the namespace may stand anywhere before "(".
    if(symbol MATCHES "^[0-9a-f]+ [A-Zuv] " AND NOT symbol MATCHES "^[^(]*thalweg::${ISA}::")
      string(APPEND leaks "  ${symbol}\n    in ${object}\n")
    endif()
  endforeach()
endforeach()
if(leaks)
  message(FATAL_ERROR "symbol guard: symbols outside thalweg::${ISA}:\n${leaks}")
endif()
