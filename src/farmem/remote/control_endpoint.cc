#include "farmem/remote/control_endpoint.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/assert.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint64_t kSent = 1u << 16;  // In a wr_id, beside the place.
constexpr std::uint8_t kRetries = 7;
constexpr std::uint8_t kNotReadyRetries = 6;  // 7 would be for ever.

}  // namespace

Result<std::unique_ptr<ControlEndpoint>> ControlEndpoint::create(rdma_cm_id& id, ibv_pd& pd,
                                                                 ibv_cq& cq) {
  auto memory = ISTHMUS_TRY(os::AnonymousMemory::create(2 * kDepth * kMaxNodeMessageBytes));
  ibv_qp_init_attr init{};
  init.send_cq = init.recv_cq = &cq;
  init.cap.max_send_wr = init.cap.max_recv_wr = kDepth;
  init.cap.max_send_sge = init.cap.max_recv_sge = 1;
  init.qp_type = IBV_QPT_RC;
  if (rdma_create_qp(&id, &pd, &init) != 0) return fail_errno(errno, "create a queue pair");
  std::unique_ptr<ControlEndpoint> endpoint{new ControlEndpoint(id, std::move(memory))};
  endpoint->region_.reset(ibv_reg_mr(&pd, endpoint->memory_->data(), endpoint->memory_->size(),
                                     IBV_ACCESS_LOCAL_WRITE));
  if (!endpoint->region_) return fail_errno(errno, "register the buffers of messages");
  for (std::uint32_t place = 0; place < kDepth; ++place) {
    ISTHMUS_TRY_VOID(endpoint->receive(place));
  }
  return endpoint;
}

ControlEndpoint::~ControlEndpoint() { rdma_destroy_qp(&id_); }

Result<void> ControlEndpoint::receive(std::uint32_t place) {
  ISTHMUS_ASSERT(place < kDepth);
  ibv_sge sge{.addr = reinterpret_cast<std::uintptr_t>(receive_buffer(place)),
              .length = kMaxNodeMessageBytes,
              .lkey = region_->lkey};
  ibv_recv_wr wr{.wr_id = place, .next = nullptr, .sg_list = &sge, .num_sge = 1};
  ibv_recv_wr* bad = nullptr;
  if (const int error = ibv_post_recv(id_.qp, &wr, &bad); error != 0) {
    return fail_errno(error, "receive a message");
  }
  return {};
}

Result<void> ControlEndpoint::send(std::uint32_t place, std::span<const std::byte> message) {
  ISTHMUS_ASSERT(place < kDepth && message.size() <= kMaxNodeMessageBytes);
  std::ranges::copy(message, send_buffer(place));
  ibv_sge sge{.addr = reinterpret_cast<std::uintptr_t>(send_buffer(place)),
              .length = static_cast<std::uint32_t>(message.size()),
              .lkey = region_->lkey};
  ibv_send_wr wr{};
  wr.wr_id = kSent | place;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = IBV_WR_SEND;
  wr.send_flags = IBV_SEND_SIGNALED;
  ibv_send_wr* bad = nullptr;
  if (const int error = ibv_post_send(id_.qp, &wr, &bad); error != 0) {
    return fail_errno(error, "send a message");
  }
  return {};
}

ControlEndpoint::Completed ControlEndpoint::completed(const ibv_wc& wc) const {
  Completed done{.sent = (wc.wr_id & kSent) != 0,
                 .place = static_cast<std::uint32_t>(wc.wr_id & ~kSent),
                 .received = {}};
  ISTHMUS_ASSERT(done.place < kDepth);
  if (!done.sent) {
    done.received = {receive_buffer(done.place),
                     std::min<std::size_t>(wc.byte_len, kMaxNodeMessageBytes)};
  }
  return done;
}

rdma_conn_param control_parameters() {
  rdma_conn_param parameters{};
  parameters.retry_count = kRetries;
  parameters.rnr_retry_count = kNotReadyRetries;
  return parameters;
}

}  // namespace isthmus::farmem
