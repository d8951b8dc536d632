// Endpoints: an id made from the result of rdma_getaddrinfo, with its QP, in one call.

#include <memory>

#include "rdmacm/endpoint.h"
#include "rdmacm/failure.h"
#include "rdmacm/outcome.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {
namespace {

bool is_qp_type(int number) {
  return number == IBV_QPT_RC || number == IBV_QPT_UC || number == IBV_QPT_UD ||
         number == IBV_QPT_XRC_SEND || number == IBV_QPT_XRC_RECV;
}

constexpr int kResolveTimeoutMs = 2000;
constexpr int kOptionLevelIb = 1;  // RDMA_OPTION_IB of the kernel's header.
constexpr int kOptionIbPath = 1;   // RDMA_OPTION_IB_PATH.

Result<void> make_passive(Identifier& identifier, const rdma_addrinfo& info, ibv_pd* pd,
                          const ibv_qp_init_attr* qp_attributes) {
  const attach::CmAddress address = ISTHMUS_TRY(address_of(info.ai_src_addr));
  ISTHMUS_TRY_VOID(bind_address(identifier, address));
  if (pd != nullptr) identifier.pd = pd;
  if (qp_attributes != nullptr) {
    identifier.endpoint_qp = *qp_attributes;
    identifier.endpoint_qp->qp_type = static_cast<ibv_qp_type>(info.ai_qp_type);
  }
  return {};
}

Result<void> make_active(Identifier& identifier, const rdma_addrinfo& info, ibv_pd* pd,
                         ibv_qp_init_attr* qp_attributes) {
  const auto source = ISTHMUS_TRY(address_of(info.ai_src_addr));
  const auto destination = ISTHMUS_TRY(address_of(info.ai_dst_addr));
  ISTHMUS_TRY_VOID(resolve_address(identifier, source, destination, kResolveTimeoutMs));
  if (info.ai_route_len != 0) {
    // SAFETY: the bytes of the caller's addrinfo, borrowed until return.
    ISTHMUS_TRY_VOID(set_option(identifier, kOptionLevelIb, kOptionIbPath,
                                {static_cast<const std::byte*>(info.ai_route), info.ai_route_len}));
    ISTHMUS_TRY_VOID(complete(identifier));
  } else {
    ISTHMUS_TRY_VOID(resolve_route(identifier, kResolveTimeoutMs));
  }
  if (qp_attributes != nullptr) {
    qp_attributes->qp_type = static_cast<ibv_qp_type>(info.ai_qp_type);
    if (rdma_create_qp(&identifier, pd, qp_attributes) != 0) return fail_with(errno, "make a QP");
  }
  const auto* const prefix = static_cast<const std::byte*>(info.ai_connect);
  identifier.connect_prefix.assign(prefix, prefix + info.ai_connect_len);
  return {};
}

}  // namespace
}  // namespace isthmus::rdmacm

using namespace isthmus::rdmacm;

int rdma_create_ep(rdma_cm_id** id, rdma_addrinfo* info, ibv_pd* pd,
                   ibv_qp_init_attr* qp_attributes) {
  if (id == nullptr || info == nullptr || !is_port_space(info->ai_port_space) ||
      !is_qp_type(info->ai_qp_type)) {
    return failed(EINVAL);
  }
  const auto made = Session::current().create_identifier(
      {.channel = nullptr,
       .context = nullptr,
       .port_space = static_cast<rdma_port_space>(info->ai_port_space),
       .qp_type = static_cast<ibv_qp_type>(info->ai_qp_type)});
  if (!made) return failed(made.error());
  const bool passive = (info->ai_flags & RAI_PASSIVE) != 0;
  const auto ready = passive ? make_passive(**made, *info, pd, qp_attributes)
                             : make_active(**made, *info, pd, qp_attributes);
  if (!ready) {
    rdma_destroy_ep(*made);
    return failed(ready.error());
  }
  *id = *made;
  return 0;
}

void rdma_destroy_ep(rdma_cm_id* id) {
  if (id->qp != nullptr) rdma_destroy_qp(id);
  if (id->srq != nullptr) rdma_destroy_srq(id);
  rdma_destroy_id(id);
}

int rdma_get_request(rdma_cm_id* listener, rdma_cm_id** id) {
  const auto identifier = Session::own(listener);
  if (!identifier) return failed(identifier.error());
  if (!(*identifier)->synchronous || id == nullptr) return failed(EINVAL);
  if (listener->event != nullptr) {
    rdma_ack_cm_event(listener->event);
    listener->event = nullptr;
  }
  const auto next = (*identifier)->session->next_event(Channel::of(listener->channel));
  if (!next) return failed(next.error());
  Event* const event = *next;
  // An event that is no request stays with the listener for the program to look at.
  const auto keep = [&](int error) {
    listener->event = event;
    return failed(error);
  };
  if (event->event == RDMA_CM_EVENT_REJECTED) return keep(ECONNREFUSED);
  if (event->status != 0) return keep(event->status < 0 ? -event->status : event->status);
  if (event->event != RDMA_CM_EVENT_CONNECT_REQUEST) return keep(EINVAL);
  if ((*identifier)->endpoint_qp) {
    ibv_qp_init_attr attributes = *(*identifier)->endpoint_qp;
    if (rdma_create_qp(event->id, listener->pd, &attributes) != 0) return keep(errno);
  }
  *id = event->id;
  (*id)->event = event;
  return 0;
}
