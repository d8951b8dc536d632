// The numbers of the virtual device, with their arithmetic.
#pragma once

#include <cstddef>
#include <cstdint>

namespace isthmus::rdma {

// A QP number is 24 bits:   function (10) | generation (2) | QP index (12).
// The daemon's socket steering reads the top 10 bits; the generation keeps packets of a destroyed
// QP from reaching the next user of its index.
constexpr unsigned kQpIndexBits = 12;
constexpr unsigned kQpGenerationBits = 2;
constexpr unsigned kFunctionBits = 10;
static_assert(kFunctionBits + kQpGenerationBits + kQpIndexBits == 24, "a QPN is 24 bits");

constexpr std::uint32_t kFunctionCount = 1u << kFunctionBits;      // Function 0 is the daemon.
constexpr std::uint32_t kMaxQueuePairs = 1u << kQpIndexBits;       // Of one function.
constexpr unsigned kFunctionShift = kQpGenerationBits + kQpIndexBits;

constexpr std::uint32_t kMulticastQpn = 0xff'ffff;  // A destination, nobody's number.
constexpr std::uint32_t function_of(std::uint32_t qpn) { return qpn >> kFunctionShift; }
constexpr std::uint32_t index_of(std::uint32_t qpn) { return qpn & (kMaxQueuePairs - 1); }

// A key is 32 bits:   index (16) | tag (16), the tag drawn anew for each use of an index.
constexpr std::uint32_t kMaxKeys = 1u << 16;

// Programs probe limits by trying, so they are enforced exactly as they are advertised.
constexpr std::uint32_t kMaxWorkRequests = 16384;  // Of one queue.
constexpr std::uint32_t kMaxSge = 16;           // As many as a ring entry of window.h holds.
constexpr std::uint32_t kMaxInlineBytes = 400;     // As soft-RoCE.
constexpr std::uint32_t kMaxCqEntries = 1u << 20;
constexpr std::uint32_t kMaxSharedReceiveQueues = 1024;
constexpr std::uint32_t kMaxReadAtomic = 128;
constexpr std::uint32_t kMaxGids = 32;
constexpr std::uint32_t kMaxMessageBytes = 1u << 31;
constexpr std::uint32_t kMaxMtuBytes = 4096;
constexpr std::uint32_t kMaxMulticastGroups = 256;
constexpr std::uint32_t kMaxFlowRules = 1024;  // Each frame is held against all of them.

// The acknowledgement timeout of a QP attribute (0 would be never) is 4.096 us * 2^timeout. A
// responder of ours is a thread, which a busy machine keeps waiting for some milliseconds, so the
// shortest ones are raised.
constexpr std::uint64_t kMinTimeoutNs = 32'000'000;
constexpr std::uint64_t timeout_ns(unsigned timeout) {
  const std::uint64_t nominal = 4096ull << timeout;
  return nominal > kMinTimeoutNs ? nominal : kMinTimeoutNs;
}

}  // namespace isthmus::rdma
