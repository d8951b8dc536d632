// make_safe_for_toml(): keeps from toml++ what it does not survive.
//
// Primer: toml++ 3.3 runs into __builtin_unreachable() when it meets some letters beyond ASCII
// where a token may begin, and a key of very many dots (a.a.a = 1) makes tables so deep that
// taking them apart, by recursion, exhausts the stack. Documents come from files and over the
// control socket, so the daemon must outlive either.
//
// Names and labels are ASCII; letters beyond it belong into comments, and there they are blanked.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace isthmus::cluster {

// The same document, with every line and column in its place. kInvalid, with the place, if it
// has a character beyond ASCII outside of a comment, a text of several lines (which would take
// more of TOML's rules to follow than it is worth), or too many dots in the keys of a line.
Result<std::string> make_safe_for_toml(std::string_view text, std::string_view document_name);

}  // namespace isthmus::cluster
