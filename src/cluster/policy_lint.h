// lint(): what a policy document says that its author may not have meant.
//
// A document with lints is valid and is applied as it stands; these are the sentences that
// `isthmus policy check` prints beside it:
//
//     a rule that no connection reaches, because one earlier rule matches all that it matches
//     two rules of one name, so that a log line does not say which decided
//     a right that the rule's transports do not have (UD has SEND alone, UC no READ, no atomics)
//     a deny rule that an unknown label or port slips past, in a document that allows the rest
//     a rule with labels of both sides and an address: two hosts never know both labels
//     no default written
//
// Every rule called unreachable is. Not every unreachable rule is found: one that several earlier
// rules cover only together is not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cluster/policy.h"

namespace isthmus::cluster {

struct PolicyLint {
  std::uint32_t line = 0;  // Of the document, from 1; 0: the document as a whole.
  std::string text;
};

// In the order of the rules, after those of the document as a whole.
std::vector<PolicyLint> lint(const PolicyDocument& document);

}  // namespace isthmus::cluster
