# isthmus_module(NAME [deps...]) makes one static library of the folder's *.cc files, and one test
# program NAME_test of its *_test.cc files. A folder is complete when its files are in it: no list
# of files is kept by hand.
function(isthmus_module name)
  file(GLOB all CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  set(sources ${all})
  set(tests ${all})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  if(sources)
    add_library(isthmus_${name} STATIC ${sources})
    set(scope PUBLIC)
  else()
    add_library(isthmus_${name} INTERFACE)
    set(scope INTERFACE)
  endif()
  target_include_directories(isthmus_${name} ${scope} ${PROJECT_SOURCE_DIR}/src)
  foreach(dep ${ARGN})
    target_link_libraries(isthmus_${name} ${scope} ${dep})
  endforeach()

  if(tests)
    isthmus_test(${name}_test LABEL unit SOURCES ${tests} DEPS isthmus_${name})
  endif()
endfunction()

# isthmus_test(NAME LABEL label SOURCES ... DEPS ...): a GoogleTest program, one ctest entry each.
function(isthmus_test name)
  cmake_parse_arguments(arg "" "LABEL;TIMEOUT" "SOURCES;DEPS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPS} GTest::gtest GTest::gmock GTest::gtest_main)
  target_compile_definitions(${name} PRIVATE ISTHMUS_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT})
endfunction()

# isthmus_fuzz(NAME SOURCES ... DEPS ... [CORPUS dir]). With clang a libFuzzer program; always a
# replay of the corpus, so that every run of the tests visits every input that once mattered.
function(isthmus_fuzz name)
  cmake_parse_arguments(arg "" "CORPUS" "SOURCES;DEPS" ${ARGN})
  if(ISTHMUS_FUZZ)
    add_executable(${name} ${arg_SOURCES})
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    target_link_libraries(${name} PRIVATE ${arg_DEPS})
    add_test(NAME ${name} COMMAND ${name} -runs=20000 -max_len=8192 -print_final_stats=0
                                  ${arg_CORPUS})
  else()
    add_executable(${name} ${arg_SOURCES} ${PROJECT_SOURCE_DIR}/fuzz/replay_main.cc)
    target_link_libraries(${name} PRIVATE ${arg_DEPS})
    add_test(NAME ${name} COMMAND ${name} ${arg_CORPUS})
  endif()
  set_tests_properties(${name} PROPERTIES LABELS fuzz TIMEOUT 300)
endfunction()
