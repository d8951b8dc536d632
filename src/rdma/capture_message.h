// What the memory channel moves has no packets. capture_message records those that the RoCE channel
// would have sent for it: requests, responses and acknowledgements, with right ICRCs, so that
// Wireshark shows both channels alike. The PSNs are the capture's own.
//
// Threading: shard-confined, under the engine's lock.
#pragma once

#include <infiniband/verbs.h>
#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "rdma/capture_ring.h"

namespace isthmus::rdma {

class QueuePair;

struct CapturedMessage {
  ibv_wr_opcode opcode = IBV_WR_SEND;
  std::uint32_t& psn;  // Of the next packet; moved on.
  std::uint32_t length = 0;
  std::uint32_t immediate = 0;
  std::uint64_t remote_address = 0;
  std::uint32_t rkey = 0;
  std::uint64_t compare_add = 0;
  std::uint64_t swap = 0;
  std::uint64_t original = 0;
  std::span<const iovec> payload;  // In our own memory.
};

// `direction` is that of the request.
void capture_message(const QueuePair& qp, CaptureDirection direction,
                     const CapturedMessage& message);

}  // namespace isthmus::rdma
