#include "apps/isthmus_run_memory.h"

#include <charconv>
#include <cctype>

#include "apps/isthmus_memory_nodes.h"
#include "farmem/node_address.h"
#include "farmem/pager.h"

namespace isthmus::apps {
namespace {

constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 43;  // 2^31 pages: see farmem/page_table.h

std::string in_mib(std::uint64_t bytes) { return std::to_string(bytes >> 20) + "M"; }

Result<std::uint64_t> parse_option(const char* option, const std::string& text) {
  auto bytes = parse_size(text);
  if (!bytes) return fail(ErrorCode::kInvalid, "%s: %s", option, bytes.error().message.c_str());
  return bytes;
}

}  // namespace

Result<std::uint64_t> parse_size(std::string_view text) {
  const auto wrong = [text] {
    return fail(ErrorCode::kInvalid, "'%.64s' is no size; write a number and K, M, G or T, as 256M",
                std::string(text).c_str());
  };
  std::uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [behind, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{}) return wrong();
  std::string_view unit(behind, static_cast<std::size_t>(end - behind));
  int shift = 0;
  if (!unit.empty()) {
    const std::size_t power =
        std::string_view("KMGT").find(static_cast<char>(std::toupper(unit.front())));
    if (power == std::string_view::npos) return wrong();
    shift = 10 * (static_cast<int>(power) + 1);
    unit.remove_prefix(1);
  }
  if (!unit.empty() && unit != "iB" && unit != "B") return wrong();
  if (number > (std::uint64_t{1} << 63) >> shift) return wrong();
  return number << shift;
}

Result<RunMemory> check_run_memory(const RunOptions& options, std::uint64_t present_bytes) {
  RunMemory memory;
  if (options.far_memory.empty() && options.local_memory.empty()) {
    if (!options.memory_nodes.empty() || options.replicas != 1 || !options.prefetch.empty() ||
        !options.faults.empty()) {
      return fail(ErrorCode::kInvalid,
                  "--memory-node, --replicas, --prefetch and --faults are for far memory; add "
                  "--local-memory and --far-memory");
    }
    return memory;
  }
  if (options.far_memory.empty() || options.local_memory.empty()) {
    return fail(ErrorCode::kInvalid,
                "--local-memory and --far-memory go together: how much of the program's memory may "
                "be here, and how much it may have in all");
  }
  memory.local_bytes = ISTHMUS_TRY(parse_option("--local-memory", options.local_memory));
  memory.far_bytes = ISTHMUS_TRY(parse_option("--far-memory", options.far_memory));
  if (memory.local_bytes < farmem::kLeastLocalBytes) {
    return fail(ErrorCode::kInvalid, "--local-memory %s is too little; the least is %s",
                options.local_memory.c_str(), in_mib(farmem::kLeastLocalBytes).c_str());
  }
  if (present_bytes != 0 && memory.local_bytes > present_bytes) {
    return fail(ErrorCode::kInvalid, "--local-memory %s is more than this machine has, %s",
                options.local_memory.c_str(), in_mib(present_bytes).c_str());
  }
  if (memory.far_bytes == 0 || memory.far_bytes > kMostBytes) {
    return fail(ErrorCode::kInvalid, "--far-memory %s is not between 1 and %s",
                options.far_memory.c_str(), in_mib(kMostBytes).c_str());
  }
  for (const std::string& node : options.memory_nodes) {
    if (const auto address = farmem::parse_node_address(node); !address) {
      return fail(ErrorCode::kInvalid, "--memory-node: %s", address.error().message.c_str());
    }
  }
  return memory;
}

std::string caution_for(os::UffdFeatures features) {
  if ((features & os::kUffdMove) != 0) return {};
  // A page that is copied out and dropped is not the one that a device goes on writing to.
  return "this kernel can only copy pages that leave, not move them (UFFDIO_MOVE came with Linux "
         "6.8): far memory is slower, and what programs read from files with O_DIRECT may be lost";
}

Result<os::EnvironmentChanges> memory_environment(const RunMemory& memory,
                                                  const RunOptions& options) {
  std::string nodes;
  for (const std::string& node : options.memory_nodes) nodes += (nodes.empty() ? "" : ",") + node;
  if (nodes.empty()) nodes = ISTHMUS_TRY(find_lending_nodes(options.directory));
  return os::EnvironmentChanges{
      {"ISTHMUS_FAR_MEMORY", std::to_string(memory.far_bytes)},
      {"ISTHMUS_LOCAL_MEMORY", std::to_string(memory.local_bytes)},
      {"ISTHMUS_MEMORY_NODES", nodes},
      {"ISTHMUS_MEMORY_REPLICAS", std::to_string(options.replicas)},
      {"ISTHMUS_MEMORY_ENCRYPT", options.encrypt ? "1" : "0"},
      {"ISTHMUS_PREFETCH", options.prefetch.empty() ? "adaptive" : options.prefetch},
      {"ISTHMUS_FAULTS", options.faults.empty() ? "auto" : options.faults}};
}

}  // namespace isthmus::apps
