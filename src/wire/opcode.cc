#include "wire/opcode.h"

namespace isthmus::wire {
namespace {

// By the low five bits, which mean the same in every service that has them.
constexpr std::array<const char*, 32> kOperationNames = {
    "SEND First",
    "SEND Middle",
    "SEND Last",
    "SEND Last with immediate",
    "SEND Only",
    "SEND Only with immediate",
    "WRITE First",
    "WRITE Middle",
    "WRITE Last",
    "WRITE Last with immediate",
    "WRITE Only",
    "WRITE Only with immediate",
    "READ request",
    "READ response First",
    "READ response Middle",
    "READ response Last",
    "READ response Only",
    "ACK",
    "atomic ACK",
    "compare and swap",
    "fetch and add",
    "unknown",
    "SEND Last with invalidate",
    "SEND Only with invalidate",
    "unknown",
    "unknown",
    "unknown",
    "unknown",
    "FLUSH",
    "ATOMIC WRITE",
    "unknown",
    "unknown",
};

}  // namespace

const char* service_name(Opcode opcode) {
  const OpcodeInfo& op = info(opcode);
  if (!op.valid) return "unknown";
  switch (op.service) {
    case Service::kRc:
      return "RC";
    case Service::kUc:
      return "UC";
    case Service::kUd:
      return "UD";
    case Service::kXrc:
      return "XRC";
    case Service::kCnp:
      return "CNP";
  }
  return "unknown";
}

const char* operation_name(Opcode opcode) {
  const OpcodeInfo& op = info(opcode);
  if (!op.valid) return "unknown";
  if (op.service == Service::kCnp) return "congestion notification";
  return kOperationNames[static_cast<std::uint8_t>(opcode) & 0x1f];
}

}  // namespace isthmus::wire
