// What a program finds in its environment about far memory: written by `isthmus run`, inherited by
// every program that it starts, and checked here, since anybody may have written it.
//
//     ISTHMUS_FAR_MEMORY       bytes of the far region; without it, there is no far memory
//     ISTHMUS_LOCAL_MEMORY     bytes of it that may be here
//     ISTHMUS_MEMORY_NODES     host:port,host:port
//     ISTHMUS_MEMORY_REPLICAS  on how many nodes each page is; default 1
//     ISTHMUS_MEMORY_ENCRYPT   1: nodes see ciphertext only; default 0
//     ISTHMUS_PREFETCH         none, next or adaptive, the default
//     ISTHMUS_FAULTS           auto, the default, signal or message: who serves page faults
//
// A program that such a program starts has the same settings, and memory and limits of its own.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "farmem/fault_delivery.h"
#include "farmem/prefetch.h"

namespace isthmus::preload {

constexpr std::uint32_t kMostReplicas = 2;
constexpr std::size_t kMostNodes = 256;

struct FarSettings {
  std::uint64_t far_bytes = 0;    // Whole pages.
  std::uint64_t local_bytes = 0;  // Whole pages.
  std::vector<std::string> nodes;
  std::uint32_t replicas = 1;
  farmem::PrefetchPolicy prefetch = farmem::PrefetchPolicy::kAdaptive;
  bool encrypt = false;
  std::optional<farmem::FaultDelivery> faults;  // Nothing: whichever fits.
};

// The value of a variable, or nullptr.
using Environment = std::function<const char*(const char* name)>;

// Nothing: no far memory is asked for. kInvalid names the variable.
Result<std::optional<FarSettings>> read_far_settings(const Environment& environment);

}  // namespace isthmus::preload
