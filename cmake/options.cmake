# Warnings and sanitizers, for every target.
add_compile_options(-Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual
                    -Wno-missing-field-initializers -Werror -fno-omit-frame-pointer)
# Guests and peers share memory with us: type punning through byte buffers must stay defined.
add_compile_options(-fno-strict-aliasing)

if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # Clang 14 hides std::expected of libstdc++ 12, which asks for a newer concepts macro.
  add_compile_options(-U__cpp_concepts -D__cpp_concepts=202002L -Wno-builtin-macro-redefined
                      -Wno-unused-command-line-argument)
endif()

if(ISTHMUS_SANITIZE)
  add_compile_options(-fsanitize=${ISTHMUS_SANITIZE} -fno-sanitize-recover=all)
  add_link_options(-fsanitize=${ISTHMUS_SANITIZE})
endif()
