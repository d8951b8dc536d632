// Queue pairs, shared receive queues and completion queues made on an id.

#include <cstring>

#include "rdmacm/failure.h"
#include "rdmacm/outcome.h"
#include "rdmacm/qp_states.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {
namespace {

void destroy_queues(rdma_cm_id& id) {
  // The SRQ of an XRC receiver still completes into them.
  if (id.qp_type == IBV_QPT_XRC_RECV && id.srq != nullptr) return;
  if (id.send_cq != nullptr && id.send_cq != id.recv_cq) ibv_destroy_cq(id.send_cq);
  if (id.recv_cq != nullptr) ibv_destroy_cq(id.recv_cq);
  if (id.send_cq_channel != nullptr && id.send_cq_channel != id.recv_cq_channel) {
    ibv_destroy_comp_channel(id.send_cq_channel);
  }
  if (id.recv_cq_channel != nullptr) ibv_destroy_comp_channel(id.recv_cq_channel);
  id.send_cq = id.recv_cq = nullptr;
  id.send_cq_channel = id.recv_cq_channel = nullptr;
}

Result<void> create_queue(rdma_cm_id& id, std::uint32_t entries, ibv_comp_channel*& channel,
                          ibv_cq*& queue) {
  channel = ibv_create_comp_channel(id.verbs);
  if (channel == nullptr) return fail_with(errno, "make a completion channel");
  queue = ibv_create_cq(id.verbs, static_cast<int>(entries), &id, channel, 0);
  if (queue == nullptr) return fail_with(errno, "make a completion queue");
  return {};
}

// 0 entries: the caller brings that queue along.
Result<void> create_queues(rdma_cm_id& id, std::uint32_t send_entries,
                           std::uint32_t receive_entries) {
  Result<void> made;
  if (receive_entries != 0) {
    made = create_queue(id, receive_entries, id.recv_cq_channel, id.recv_cq);
  }
  if (made && send_entries != 0) {
    made = create_queue(id, send_entries, id.send_cq_channel, id.send_cq);
  }
  if (!made) destroy_queues(id);
  return made;
}

Result<void> fill_srq_attributes(Identifier& identifier, ibv_srq_init_attr_ex& attributes) {
  if ((attributes.comp_mask & IBV_SRQ_INIT_ATTR_PD) == 0 || attributes.pd == nullptr) {
    attributes.pd = identifier.pd;
    attributes.comp_mask |= IBV_SRQ_INIT_ATTR_PD;
  }
  if (attributes.srq_type != IBV_SRQT_XRC) return {};
  if ((attributes.comp_mask & IBV_SRQ_INIT_ATTR_XRCD) == 0 || attributes.xrcd == nullptr) {
    attributes.xrcd = ISTHMUS_TRY(identifier.session->devices().shared_xrcd(*identifier.device));
  }
  if ((attributes.comp_mask & IBV_SRQ_INIT_ATTR_CQ) == 0 || attributes.cq == nullptr) {
    const bool own = identifier.recv_cq == nullptr;
    ISTHMUS_TRY_VOID(create_queues(identifier, 0, own ? attributes.attr.max_wr : 0));
    attributes.cq = identifier.recv_cq;
  }
  attributes.comp_mask |= IBV_SRQ_INIT_ATTR_XRCD | IBV_SRQ_INIT_ATTR_CQ;
  return {};
}

Result<void> create_srq(Identifier& identifier, ibv_srq_init_attr_ex& attributes) {
  if (identifier.device == nullptr) return fail(ErrorCode::kInvalid, "the address comes first");
  if ((attributes.comp_mask & IBV_SRQ_INIT_ATTR_TYPE) == 0) {
    return fail(ErrorCode::kInvalid, "a shared receive queue without a type");
  }
  ISTHMUS_TRY_VOID(fill_srq_attributes(identifier, attributes));
  ibv_srq* const srq = ibv_create_srq_ex(identifier.verbs, &attributes);
  if (srq == nullptr) {
    const int error = errno;
    destroy_queues(identifier);
    return fail_with(error, "make a shared receive queue");
  }
  if (identifier.pd == nullptr) identifier.pd = attributes.pd;
  identifier.srq = srq;
  return {};
}

Result<void> fill_qp_attributes(Identifier& identifier, ibv_qp_init_attr_ex& attributes) {
  if ((attributes.comp_mask & IBV_QP_INIT_ATTR_PD) == 0 || attributes.pd == nullptr) {
    attributes.comp_mask |= IBV_QP_INIT_ATTR_PD;
    attributes.pd = identifier.pd;
  } else if (identifier.verbs != attributes.pd->context) {
    return fail(ErrorCode::kInvalid, "the protection domain is of another device");
  }
  const auto differ = [](const ibv_cq* ours, const ibv_cq* theirs) {
    return ours != nullptr && theirs != nullptr && ours != theirs;
  };
  if (differ(identifier.recv_cq, attributes.recv_cq) ||
      differ(identifier.send_cq, attributes.send_cq)) {
    return fail(ErrorCode::kInvalid, "the id has other completion queues");
  }
  if (identifier.qp_type == IBV_QPT_XRC_RECV &&
      ((attributes.comp_mask & IBV_QP_INIT_ATTR_XRCD) == 0 || attributes.xrcd == nullptr)) {
    attributes.xrcd = ISTHMUS_TRY(identifier.session->devices().shared_xrcd(*identifier.device));
    attributes.comp_mask |= IBV_QP_INIT_ATTR_XRCD;
  }
  const bool own_send = attributes.send_cq == nullptr && identifier.send_cq == nullptr;
  const bool own_receive = attributes.recv_cq == nullptr && identifier.recv_cq == nullptr;
  ISTHMUS_TRY_VOID(create_queues(identifier, own_send ? attributes.cap.max_send_wr : 0,
                                 own_receive ? attributes.cap.max_recv_wr : 0));
  if (attributes.send_cq == nullptr) attributes.send_cq = identifier.send_cq;
  if (attributes.recv_cq == nullptr) attributes.recv_cq = identifier.recv_cq;
  if (attributes.srq == nullptr) attributes.srq = identifier.srq;
  return {};
}

Result<void> create_qp(Identifier& identifier, ibv_qp_init_attr_ex& attributes) {
  if (identifier.qp != nullptr) return fail(ErrorCode::kInvalid, "the id has a QP already");
  if (identifier.device == nullptr) return fail(ErrorCode::kInvalid, "the address comes first");
  ISTHMUS_TRY_VOID(fill_qp_attributes(identifier, attributes));
  ibv_qp* const qp = ibv_create_qp_ex(identifier.verbs, &attributes);
  if (qp == nullptr) {
    const int error = errno;
    destroy_queues(identifier);
    return fail_with(error, "make a QP");
  }
  const auto prepared = prepare_qp(identifier, *qp);
  if (!prepared) {
    ibv_destroy_qp(qp);
    destroy_queues(identifier);
    return std::unexpected(prepared.error());
  }
  if (qp->pd != nullptr) identifier.pd = qp->pd;  // A QP that receives XRC has none.
  identifier.qp = qp;
  return {};
}

}  // namespace
}  // namespace isthmus::rdmacm

using namespace isthmus::rdmacm;

int rdma_create_srq_ex(rdma_cm_id* id, ibv_srq_init_attr_ex* attributes) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  return outcome(create_srq(**identifier, *attributes));
}

int rdma_create_srq(rdma_cm_id* id, ibv_pd* pd, ibv_srq_init_attr* attributes) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  ibv_srq_init_attr_ex extended{};
  extended.srq_context = attributes->srq_context;
  extended.attr = attributes->attr;
  extended.comp_mask = IBV_SRQ_INIT_ATTR_TYPE | IBV_SRQ_INIT_ATTR_PD;
  extended.srq_type = id->qp_type == IBV_QPT_XRC_RECV ? IBV_SRQT_XRC : IBV_SRQT_BASIC;
  extended.pd = pd;
  const auto made = create_srq(**identifier, extended);
  attributes->attr = extended.attr;
  return outcome(made);
}

void rdma_destroy_srq(rdma_cm_id* id) {
  ibv_destroy_srq(id->srq);
  id->srq = nullptr;
  destroy_queues(*id);
}

int rdma_create_qp_ex(rdma_cm_id* id, ibv_qp_init_attr_ex* attributes) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  return outcome(create_qp(**identifier, *attributes));
}

int rdma_create_qp(rdma_cm_id* id, ibv_pd* pd, ibv_qp_init_attr* attributes) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  // The extended struct begins with the plain one: what the device changes comes back in it.
  ibv_qp_init_attr_ex extended{};
  static_assert(offsetof(ibv_qp_init_attr_ex, comp_mask) == offsetof(ibv_qp_init_attr, sq_sig_all) +
                                                                sizeof attributes->sq_sig_all);
  constexpr std::size_t kCommonBytes = offsetof(ibv_qp_init_attr_ex, comp_mask);
  std::memcpy(static_cast<void*>(&extended), attributes, kCommonBytes);
  extended.comp_mask = IBV_QP_INIT_ATTR_PD;
  extended.pd = pd != nullptr ? pd : id->pd;
  const auto made = create_qp(**identifier, extended);
  std::memcpy(static_cast<void*>(attributes), &extended, kCommonBytes);
  return outcome(made);
}

void rdma_destroy_qp(rdma_cm_id* id) {
  ibv_destroy_qp(id->qp);
  id->qp = nullptr;
  destroy_queues(*id);
}
