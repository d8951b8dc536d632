// Any bytes as a policy document: they parse or they do not, and a document that parses can be
// written out and read back to the same, checked, and asked.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/assert.h"
#include "cluster/policy.h"
#include "cluster/policy_lint.h"
#include "cluster/policy_text.h"
#include "cluster/policy_toml.h"

using namespace isthmus::cluster;

namespace {

// Questions made of the document's own patterns, so that its rules are reached.
void ask(const PolicyDocument& document) {
  for (const PolicyRule& rule : document.rules) {
    ConnectionQuery query;
    if (!rule.from.labels.empty()) query.from.label = rule.from.labels.front();
    if (!rule.to.labels.empty()) query.to.label = rule.to.labels.front();
    if (!rule.from.gids.empty()) query.from.gid = rule.from.gids.front().address;
    if (!rule.to.gids.empty()) query.to.gid = rule.to.gids.front().address;
    if (!rule.ports.empty()) query.port = rule.ports.front().last;
    for (int direction = 0; direction <= static_cast<int>(Direction::kWithoutCm); ++direction) {
      query.direction = static_cast<Direction>(direction);
      query.transport = rule.transports.has(Transport::kRc) ? Transport::kRc : Transport::kUd;
      const PolicyVerdict verdict = document.evaluate(query);
      ISTHMUS_ASSERT(verdict.allowed() != verdict.forward.empty());
      ISTHMUS_ASSERT(verdict.allowed() != verdict.backward.empty());
      ISTHMUS_ASSERT(!verdict.rule.empty());
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // SAFETY: the bytes of the input, read as characters.
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto document = parse_policy(text, "input");
  if (!document) {
    ISTHMUS_ASSERT(document.error().message.starts_with("input:"));
    return 0;
  }
  const std::string written = format_policy(*document);
  if (written.size() <= kMaxPolicyBytes) {  // Quotation marks in names double when written.
    const auto again = parse_policy(written, "written");
    ISTHMUS_ASSERT(again.has_value());
    ISTHMUS_ASSERT(format_policy(*again) == written);
  }
  (void)lint(*document);
  ask(*document);
  return 0;
}
