// PacketBurst: packets on their way out, gathered so that many leave with one system call.
//
// Consecutive packets for one function form a run when all but the last have one length: the
// kernel then carries them through its stack as one (segmentation offload). The ICRC covers the IP
// ID, and the kernel numbers the segments of a run 0, 1, 2..., so it is computed here, where the
// place in the run is known.
//
// A payload of some size is not copied here: the kernel takes it from the program's memory at
// flush(), which comes before the engine's lock is released. Should the program change it between
// the ICRC and that, the packet is damaged, as it is lost on its way; so what is sent again is
// copied.
//
// Threading: shard-confined, under the engine's lock.
#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "rdma/address_handle.h"
#include "rdma/packet_port.h"

namespace isthmus::rdma {

class CaptureRing;

class PacketBurst {
 public:
  explicit PacketBurst(PacketPort& port);

  // Room for `bytes` of a packet, BTH and what follows, before its ICRC. Sends first what is
  // waiting if there is none.
  std::byte* begin(std::size_t bytes);
  // The packet written there is `bytes` long, at most what begin() was asked for; `local_qpn`
  // sends it.
  void commit(const Path& path, std::size_t bytes, std::uint32_t local_qpn) {
    commit(path, bytes, {}, 0, local_qpn);
  }
  // Written there are the headers; the payload, at most kMaxSge pieces, and `pad_bytes` follow.
  void commit(const Path& path, std::size_t header_bytes, std::span<const iovec> payload,
              std::size_t pad_bytes, std::uint32_t local_qpn);
  // Whether a payload of `bytes` had better stay where it is.
  bool refers(std::size_t bytes, std::uint32_t local_qpn) const;
  // Sends all.
  void flush();
  std::uint64_t packets() const { return packets_; }
  // Null: packets are not recorded any more.
  void set_capture(CaptureRing* ring) { capture_ = ring; }

 private:
  bool joins_last_run(const Path& path, const std::byte* head, std::size_t total,
                      std::size_t parts) const;
  void append(const void* data, std::size_t bytes);
  void record(const Path& path, std::size_t total, std::uint32_t local_qpn);

  PacketPort& port_;
  std::unique_ptr<std::byte[]> buffer_;
  std::size_t used_ = 0;
  std::vector<OutgoingRun> runs_;
  std::unique_ptr<iovec[]> parts_;  // Of all runs, in their order.
  std::size_t part_count_ = 0;
  std::uint32_t segments_ = 0;  // Of the last run.
  bool run_closed_ = true;      // The last run takes no more.
  std::uint64_t packets_ = 0;
  CaptureRing* capture_ = nullptr;
};

}  // namespace isthmus::rdma
