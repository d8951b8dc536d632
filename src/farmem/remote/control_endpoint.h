// ControlEndpoint: one end of a control connection: its queue pair and the buffers of its messages.
//
// There are kDepth places; a place has a buffer to receive into and one to send from. What is sent
// from a place stays there until its completion.
//
// Threading: one thread at a time.
// Input: received bytes are whatever the peer wrote; decode them from a copy of their own, which
// received() is: nobody writes there until the place receives again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "base/result.h"
#include "farmem/remote/node_protocol.h"
#include "farmem/remote/verbs_objects.h"
#include "os/anonymous_memory.h"

namespace isthmus::farmem {

class ControlEndpoint {
 public:
  static constexpr std::uint32_t kDepth = 4;
  static constexpr int kMostCompletions = 2 * kDepth;  // Under way at a time.

  // The queue pair is the id's, and ends with this object, before the id. Every place receives.
  static Result<std::unique_ptr<ControlEndpoint>> create(rdma_cm_id& id, ibv_pd& pd, ibv_cq& cq);
  ~ControlEndpoint();
  ControlEndpoint(const ControlEndpoint&) = delete;
  ControlEndpoint& operator=(const ControlEndpoint&) = delete;

  std::uint32_t qpn() const { return id_.qp->qp_num; }

  Result<void> receive(std::uint32_t place);
  Result<void> send(std::uint32_t place, std::span<const std::byte> message);

  // Of a successful completion.
  struct Completed {
    bool sent = false;
    std::uint32_t place = 0;
    std::span<const std::byte> received;
  };
  Completed completed(const ibv_wc& wc) const;

 private:
  ControlEndpoint(rdma_cm_id& id, std::unique_ptr<os::AnonymousMemory> memory)
      : id_(id), memory_(std::move(memory)) {}

  std::byte* receive_buffer(std::uint32_t place) const {
    return memory_->data() + place * kMaxNodeMessageBytes;
  }
  std::byte* send_buffer(std::uint32_t place) const { return receive_buffer(kDepth + place); }

  rdma_cm_id& id_;
  std::unique_ptr<os::AnonymousMemory> memory_;
  MrOwner region_;
};

// A connection's parameters: what waits for a peer that is not ready or gone is bounded.
rdma_conn_param control_parameters();

}  // namespace isthmus::farmem
