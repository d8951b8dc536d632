# Warnings and sanitizers, for every target.
add_compile_options(-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                    -Wno-missing-field-initializers -Werror -fno-omit-frame-pointer)
# Guests and peers share memory with us: type punning through byte buffers must stay defined.
add_compile_options(-fno-strict-aliasing)

if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # libstdc++ 12 shows std::expected to a compiler with the concepts of 202002. Clang 16 has what it
  # uses of them, but counts itself as 201907 (until 19); 14 cannot compile it.
  add_compile_options(-U__cpp_concepts -D__cpp_concepts=202002L -Wno-builtin-macro-redefined
                      -Wno-unused-command-line-argument)
  # rdma-core's ibv_reg_mr is a macro that combines two enumerations.
  add_compile_options(-Wno-deprecated-enum-enum-conversion)
endif()

# For our shared libraries. Clang links the run time of the sanitizers into programs alone.
set(ISTHMUS_NO_UNDEFINED -Wl,--no-undefined)
if(ISTHMUS_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  set(ISTHMUS_NO_UNDEFINED "")
endif()

if(ISTHMUS_FUZZ)
  # The fuzzer follows the branches of what is instrumented: all that a target calls, not only it.
  add_compile_options(-fsanitize=fuzzer-no-link)
endif()

if(ISTHMUS_SANITIZE)
  add_compile_options(-fsanitize=${ISTHMUS_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${ISTHMUS_SANITIZE})
endif()
