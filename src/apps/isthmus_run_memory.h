// The memory options of `isthmus run`, checked, and as the environment of the program.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "apps/isthmus_options.h"
#include "base/result.h"
#include "os/child_process.h"
#include "os/userfault.h"

namespace isthmus::apps {

// "4G", "256M", "64k", "4096": powers of 1024. kInvalid: anything else, and more than 2^63 bytes.
Result<std::uint64_t> parse_size(std::string_view text);

struct RunMemory {
  std::uint64_t far_bytes = 0;  // 0: no far memory is asked for.
  std::uint64_t local_bytes = 0;
};

// kInvalid names the option. `present_bytes` is the memory of this machine.
Result<RunMemory> check_run_memory(const RunOptions& options, std::uint64_t present_bytes);

// What a program must not do on a kernel with these features; empty: it may do everything.
std::string caution_for(os::UffdFeatures features);

// With far memory; asks the directory for memory nodes unless the options name some.
Result<os::EnvironmentChanges> memory_environment(const RunMemory& memory,
                                                  const RunOptions& options);

}  // namespace isthmus::apps
