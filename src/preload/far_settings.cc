#include "preload/far_settings.h"

#include <algorithm>
#include <charconv>
#include <string_view>

#include "os/address_range.h"

namespace isthmus::preload {
namespace {

// The page tables have 32-bit page numbers; half of that keeps all sums in range.
constexpr std::uint64_t kMostBytes = (std::uint64_t{1} << 31) * os::kPageBytes;

std::string_view value_of(const Environment& environment, const char* name) {
  const char* value = environment(name);
  return value == nullptr ? std::string_view{} : std::string_view{value};
}

Result<std::uint64_t> read_number(const Environment& environment, const char* name,
                                  std::uint64_t least, std::uint64_t most) {
  const std::string_view text = value_of(environment, name);
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || error != std::errc{} || end != text.data() + text.size() || number < least ||
      number > most) {
    return fail(ErrorCode::kInvalid, "%s is '%.64s'; it takes a number from %llu to %llu", name,
                std::string(text).c_str(), static_cast<unsigned long long>(least),
                static_cast<unsigned long long>(most));
  }
  return number;
}

std::uint64_t whole_pages(std::uint64_t bytes) {
  return (bytes + os::kPageBytes - 1) / os::kPageBytes * os::kPageBytes;
}

Result<std::vector<std::string>> read_nodes(std::string_view text) {
  std::vector<std::string> nodes;
  while (!text.empty()) {
    const std::size_t comma = std::min(text.find(','), text.size());
    const std::string_view node = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (node.empty() || node.size() > 255 || nodes.size() == kMostNodes) {
      return fail(ErrorCode::kInvalid,
                  "ISTHMUS_MEMORY_NODES takes at most %zu addresses host:port, with commas between",
                  kMostNodes);
    }
    nodes.emplace_back(node);
  }
  return nodes;
}

Result<farmem::PrefetchPolicy> read_prefetch(std::string_view text) {
  using farmem::PrefetchPolicy;
  if (text.empty()) return PrefetchPolicy::kAdaptive;
  for (const auto policy :
       {PrefetchPolicy::kNone, PrefetchPolicy::kNext, PrefetchPolicy::kAdaptive}) {
    if (text == farmem::to_string(policy)) return policy;
  }
  return fail(ErrorCode::kInvalid, "ISTHMUS_PREFETCH is '%.64s'; it takes none, next or adaptive",
              std::string(text).c_str());
}

Result<std::optional<farmem::FaultDelivery>> read_faults(std::string_view text) {
  using farmem::FaultDelivery;
  if (text.empty() || text == "auto") return std::optional<FaultDelivery>{};
  for (const auto delivery : {FaultDelivery::kSignal, FaultDelivery::kMessage}) {
    if (text == farmem::to_string(delivery)) return std::optional(delivery);
  }
  return fail(ErrorCode::kInvalid, "ISTHMUS_FAULTS is '%.64s'; it takes auto, signal or message",
              std::string(text).c_str());
}

}  // namespace

Result<std::optional<FarSettings>> read_far_settings(const Environment& environment) {
  if (value_of(environment, "ISTHMUS_FAR_MEMORY").empty()) return std::optional<FarSettings>{};
  FarSettings settings;
  settings.far_bytes =
      whole_pages(ISTHMUS_TRY(read_number(environment, "ISTHMUS_FAR_MEMORY", 1, kMostBytes)));
  settings.local_bytes =
      whole_pages(ISTHMUS_TRY(read_number(environment, "ISTHMUS_LOCAL_MEMORY", 1, kMostBytes)));
  settings.nodes = ISTHMUS_TRY(read_nodes(value_of(environment, "ISTHMUS_MEMORY_NODES")));
  if (!value_of(environment, "ISTHMUS_MEMORY_REPLICAS").empty()) {
    settings.replicas = static_cast<std::uint32_t>(
        ISTHMUS_TRY(read_number(environment, "ISTHMUS_MEMORY_REPLICAS", 1, kMostReplicas)));
  }
  if (!value_of(environment, "ISTHMUS_MEMORY_ENCRYPT").empty()) {
    settings.encrypt = ISTHMUS_TRY(read_number(environment, "ISTHMUS_MEMORY_ENCRYPT", 0, 1)) == 1;
  }
  settings.prefetch = ISTHMUS_TRY(read_prefetch(value_of(environment, "ISTHMUS_PREFETCH")));
  settings.faults = ISTHMUS_TRY(read_faults(value_of(environment, "ISTHMUS_FAULTS")));
  return std::optional(std::move(settings));
}

}  // namespace isthmus::preload
