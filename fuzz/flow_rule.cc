// Frames of any bytes against rules of any bits: what is read of a frame matches itself, and a rule
// matches exactly when no bit under its mask differs.
#include <cstdlib>
#include <cstring>

#include "rdma/flow_rule.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace isthmus::rdma;
  std::span<const std::byte> input = std::as_bytes(std::span(data, size));
  FlowRule rule;
  if (!rule.matches(flow_fields_of(input))) abort();
  if (size < sizeof(FlowFields)) return 0;
  std::memcpy(&rule.mask, input.data(), sizeof rule.mask);
  const FlowFields fields = flow_fields_of(input.subspan(sizeof rule.mask));
  rule.value = fields;
  if (!rule.matches(fields)) abort();

  const std::size_t place = size % sizeof(FlowFields);
  auto* const value = reinterpret_cast<std::byte*>(&rule.value);  // SAFETY: an object as its bytes.
  value[place] = ~value[place];
  const auto* const mask = reinterpret_cast<const std::byte*>(&rule.mask);  // SAFETY: as above.
  if (rule.matches(fields) != (mask[place] == std::byte{0})) abort();
  return 0;
}
