// FaultDelivery: who gets the faults of a pager's region.
#pragma once

#include <cstdint>

namespace isthmus::farmem {

enum class FaultDelivery : std::uint8_t {
  kSignal,   // SIGBUS in the thread that faults (fault_signal.h). System calls see EFAULT.
  kMessage,  // A thread of ours reads messages (fault_messages.h). System calls wait like loads.
};

constexpr const char* to_string(FaultDelivery delivery) {
  return delivery == FaultDelivery::kSignal ? "signal" : "message";
}

}  // namespace isthmus::farmem
