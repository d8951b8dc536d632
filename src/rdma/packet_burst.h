// PacketBurst: packets on their way out, gathered so that many leave with one system call.
//
// Consecutive packets for one destination form a run when all but the last have one length: the
// kernel then carries them through its stack as one (segmentation offload). The ICRC covers the IP
// ID, and the kernel numbers the segments of a run 0, 1, 2..., so it is computed here, where the
// place in the run is known.
//
// Threading: shard-confined, under the engine's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "rdma/address_handle.h"
#include "rdma/packet_port.h"

namespace isthmus::rdma {

class CaptureRing;

class PacketBurst {
 public:
  explicit PacketBurst(PacketPort& port);

  // Room for a packet of up to `bytes` (BTH to padding), before its ICRC. Sends first what is
  // waiting if there is none.
  std::byte* begin(std::size_t bytes);
  // The packet written there is `bytes` long, at most what begin() was asked for; `local_qpn`
  // sends it.
  void commit(const Path& path, std::size_t bytes, std::uint32_t local_qpn);
  // Sends all.
  void flush();
  bool empty() const { return runs_.empty(); }

  std::uint64_t packets() const { return packets_; }
  // Null: packets are not recorded any more.
  void set_capture(CaptureRing* ring) { capture_ = ring; }

 private:
  PacketPort& port_;
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t used_ = 0;
  std::vector<OutgoingRun> runs_;
  std::uint32_t segments_ = 0;  // Of the last run.
  bool run_closed_ = true;      // The last run takes no more.
  std::uint64_t packets_ = 0;
  CaptureRing* capture_ = nullptr;
};

}  // namespace isthmus::rdma
