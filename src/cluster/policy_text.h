// The values of a policy document as text, and a whole document as TOML.
//
// format_policy() writes what parse_policy() reads back to the same rules: it is how a document
// travels from the daemon to `isthmus policy show`. Names are written out, lists in full.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.h"
#include "cluster/policy.h"

namespace isthmus::cluster {

// "10.0.0.0/8", "fd00::/64", or one address. kInvalid says what to write: an address that is none,
// a prefix longer than the address, bits set beyond the prefix.
Result<GidPrefix> parse_gid_prefix(std::string_view text);
std::string to_string(const GidPrefix& prefix);

// "7471" or "8000-8100", 1 to 65535. kInvalid says what to write.
Result<PortRange> parse_port_range(std::string_view text);
std::string to_string(PortRange range);

// A text of the document in quotation marks, for a message: shortened, and with nothing in it that
// could disturb a terminal.
std::string in_quotes(std::string_view text);

// "name:line:column: ", which begins a message about that place.
std::string place_in(std::string_view document_name, std::size_t line, std::size_t column);

std::string format_policy(const PolicyDocument& document);

}  // namespace isthmus::cluster
