// The syndrome of the ACK extended header: acknowledge, receiver not ready, or negative.
//
//     bits 6..5   00 ACK, low five bits are credits     01 RNR NAK, low five bits are a timer
//                 10 reserved                           11 NAK, low five bits are a code
//
// Spec: InfiniBand Architecture vol. 1, 9.7.5.1, tables 45 (RNR timers) and 46 (NAK codes).
#pragma once

#include <cstdint>

namespace isthmus::wire {

enum class AethKind : std::uint8_t { kAck, kRnrNak, kReserved, kNak };

enum class NakCode : std::uint8_t {
  kPsnSequence = 0,        // Resend from the PSN of this packet.
  kInvalidRequest = 1,     // Fatal: malformed, not allowed by the QP, or too long.
  kRemoteAccess = 2,       // Fatal: key, range or right does not fit.
  kRemoteOperational = 3,  // Fatal: the responder failed.
  kInvalidRdRequest = 4,   // Reliable datagram only.
};

// "I do not count credits": what software responders send.
inline constexpr std::uint8_t kUnlimitedCredits = 0x1f;

constexpr AethKind aeth_kind(std::uint8_t syndrome) {
  return static_cast<AethKind>((syndrome >> 5) & 3);
}
constexpr std::uint8_t aeth_value(std::uint8_t syndrome) { return syndrome & 0x1f; }

constexpr std::uint8_t ack_syndrome(std::uint8_t credits = kUnlimitedCredits) {
  return credits & 0x1f;
}
constexpr std::uint8_t rnr_syndrome(std::uint8_t timer_code) { return 0x20 | (timer_code & 0x1f); }
constexpr std::uint8_t nak_syndrome(NakCode code) { return 0x60 | static_cast<std::uint8_t>(code); }

// The wait that an RNR NAK asks for. Code 0 is the longest, 655.36 ms; code 1 the shortest, 10 us.
std::uint64_t rnr_timer_ns(std::uint8_t timer_code);

// The code of the shortest timer that waits at least `wait_ns`; 0 (the longest) beyond the table.
std::uint8_t rnr_timer_code(std::uint64_t wait_ns);

}  // namespace isthmus::wire
