// parse_policy(): a policy document from its TOML text.
//
//     default = "deny"                     # or "allow", which is also what no default means
//     require_mark = ["10.0.0.0/8"]
//
//     [[rule]]
//     name = "replicas"
//     from = { label = "db-*", gid = "10.0.0.0/8" }
//     to = { label = "db-*", gid = "fd00::/64", port = [7471, "8000-8100"] }
//     transport = ["rc", "ud"]
//     allow = ["connect", "read", "write", "atomic"]      # or deny = true
//     allow_back = ["read"]                               # left out: the same as allow
//
// One value may stand where a list may. Every key but allow or deny may be left out.
//
// Input: any bytes. An unknown key, a wrong type or a value out of range is an error, never
// ignored: a rule that its author misspelled must not be weaker than it looks.
#pragma once

#include <cstddef>
#include <string_view>

#include "base/result.h"
#include "cluster/policy.h"

namespace isthmus::cluster {

inline constexpr std::size_t kMaxPolicyBytes = 256u * kMaxRules;  // A rule has about 200 bytes.

// `document_name` is what messages call it, such as the path of a file. kInvalid carries one line
// for each of the first problems found: `name:line:column: found this; write that`.
Result<PolicyDocument> parse_policy(std::string_view text, std::string_view document_name);

}  // namespace isthmus::cluster
