// Connecting, accepting, rejecting, disconnecting: the functions of rdma_cma.h about a connection.

#include <algorithm>
#include <cstring>

#include "rdmacm/endpoint.h"
#include "rdmacm/outcome.h"
#include "rdmacm/qp_states.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {
namespace {

constexpr std::uint8_t kDefaultRetries = 7;

// What is asked of the device must be what it has; 0xff means "as much as there is".
Result<void> check_limits(const Identifier& identifier, const rdma_conn_param* parameters) {
  if (identifier.ps != RDMA_PS_TCP) return {};
  if (identifier.qp == nullptr && parameters == nullptr) {
    return fail(ErrorCode::kInvalid, "neither a QP on the id nor its number");
  }
  if (parameters == nullptr || identifier.device == nullptr) return {};
  const Device& device = *identifier.device;
  if (parameters->responder_resources != RDMA_MAX_RESP_RES &&
      parameters->responder_resources > device.max_responder_resources) {
    return fail(ErrorCode::kInvalid, "more responder resources than the device has");
  }
  if (parameters->initiator_depth != RDMA_MAX_INIT_DEPTH &&
      parameters->initiator_depth > device.max_initiator_depth) {
    return fail(ErrorCode::kInvalid, "a deeper initiator than the device has");
  }
  return {};
}

attach::CmConnectionParameters to_parameters(const Identifier& identifier,
                                             const rdma_conn_param* from) {
  attach::CmConnectionParameters to;
  constexpr std::uint32_t kQpnMask = 0x00ff'ffff;
  if (identifier.qp != nullptr) {
    to.qpn = identifier.qp->qp_num;
    to.srq = identifier.qp->srq != nullptr ? 1 : 0;
  } else if (from != nullptr) {
    to.qpn = from->qp_num & kQpnMask;
    to.srq = from->srq != 0 ? 1 : 0;
  }
  to.qkey = identifier.is_datagram() ? RDMA_UDP_QKEY : 0;
  to.qp_type = static_cast<std::uint8_t>(identifier.qp_type);
  to.responder_resources = identifier.responder_resources;
  to.initiator_depth = identifier.initiator_depth;
  to.flow_control = from != nullptr ? from->flow_control : 0;
  to.retry_count = from != nullptr ? from->retry_count : kDefaultRetries;
  to.rnr_retry_count = from != nullptr ? from->rnr_retry_count : kDefaultRetries;
  return to;
}

Result<void> append(attach::CmPrivateData& to, std::span<const std::byte> bytes) {
  if (bytes.size() > to.data.size() - to.bytes) {
    return fail(ErrorCode::kInvalid, "too much private data");
  }
  if (!bytes.empty()) std::memcpy(to.data.data() + to.bytes, bytes.data(), bytes.size());
  to.bytes = static_cast<std::uint16_t>(to.bytes + bytes.size());
  return {};
}

std::span<const std::byte> private_data_of(const rdma_conn_param* parameters) {
  if (parameters == nullptr || parameters->private_data == nullptr) return {};
  // SAFETY: the caller's own bytes, borrowed until return.
  return {static_cast<const std::byte*>(parameters->private_data), parameters->private_data_len};
}

void remember_facts(Identifier& identifier, bool active, std::uint32_t qpn) {
  std::lock_guard lock(identifier.facts_mutex);
  identifier.facts.active = active;
  identifier.facts.local_qpn = qpn;
}

}  // namespace

Result<void> start_connecting(Identifier& identifier, const rdma_conn_param* parameters) {
  ISTHMUS_TRY_VOID(check_limits(identifier, parameters));
  if (identifier.device == nullptr) return fail(ErrorCode::kInvalid, "the address comes first");
  // 0xff, for both: as much as the device has.
  constexpr std::uint8_t kAll = RDMA_MAX_INIT_DEPTH;
  static_assert(int{RDMA_MAX_RESP_RES} == int{RDMA_MAX_INIT_DEPTH});
  const Device& device = *identifier.device;
  const std::uint8_t depth = parameters != nullptr ? parameters->initiator_depth : kAll;
  const std::uint8_t resources = parameters != nullptr ? parameters->responder_resources : kAll;
  identifier.initiator_depth = depth == kAll ? device.max_initiator_depth : depth;
  identifier.responder_resources = resources == kAll ? device.max_responder_resources : resources;

  attach::CmConnect request;
  request.parameters = to_parameters(identifier, parameters);
  ISTHMUS_TRY_VOID(append(request.private_data, identifier.connect_prefix));
  ISTHMUS_TRY_VOID(append(request.private_data, private_data_of(parameters)));
  remember_facts(identifier, true, request.parameters.qpn);
  const Stage before = identifier.stage.exchange(Stage::kConnecting);
  const auto reply = identifier.session->call<attach::CmPlainReply>(
      identifier, attach::CmCommand::kConnect, request);
  if (!reply) {
    identifier.stage = before;
    return std::unexpected(reply.error());
  }
  identifier.connect_prefix.clear();
  return complete(identifier);
}

Result<void> accept_request(Identifier& identifier, const rdma_conn_param* parameters) {
  ISTHMUS_TRY_VOID(check_limits(identifier, parameters));
  if (identifier.device == nullptr) return fail(ErrorCode::kInvalid, "the id has no request");
  if (identifier.qp == nullptr && parameters == nullptr) {
    return fail(ErrorCode::kInvalid, "neither a QP on the id nor its number");
  }
  const Device& device = *identifier.device;
  if (parameters == nullptr || parameters->initiator_depth == RDMA_MAX_INIT_DEPTH) {
    identifier.initiator_depth = std::min(identifier.initiator_depth, device.max_initiator_depth);
  } else {
    identifier.initiator_depth = parameters->initiator_depth;
  }
  if (parameters == nullptr || parameters->responder_resources == RDMA_MAX_RESP_RES) {
    identifier.responder_resources =
        std::min(identifier.responder_resources, device.max_responder_resources);
  } else {
    identifier.responder_resources = parameters->responder_resources;
  }
  if (!identifier.is_datagram()) {
    ISTHMUS_TRY_VOID(qp_to_receive(identifier, identifier.responder_resources));
    ISTHMUS_TRY_VOID(qp_to_send(identifier, identifier.initiator_depth));
  }

  attach::CmAccept request;
  request.cookie = identifier.cookie;
  request.parameters = to_parameters(identifier, parameters);
  ISTHMUS_TRY_VOID(append(request.private_data, private_data_of(parameters)));
  remember_facts(identifier, false, request.parameters.qpn);
  if (!identifier.is_datagram()) identifier.stage = Stage::kConnecting;
  const auto reply = identifier.session->call<attach::CmPlainReply>(
      identifier, attach::CmCommand::kAccept, request);
  if (!reply) {
    identifier.stage = Stage::kOver;
    static_cast<void>(qp_to_error(identifier));
    return std::unexpected(reply.error());
  }
  if (!identifier.is_datagram()) return complete(identifier);
  // A datagram request is answered and done: no event follows.
  identifier.stage = Stage::kEstablished;
  if (identifier.synchronous && identifier.event != nullptr) {
    rdma_ack_cm_event(identifier.event);
    identifier.event = nullptr;
  }
  return {};
}

Result<void> reject_request(Identifier& identifier, std::span<const std::byte> private_data,
                            RejectReason reason) {
  attach::CmReject request;
  request.reason = static_cast<std::uint16_t>(reason);
  ISTHMUS_TRY_VOID(append(request.private_data, private_data));
  const auto reply = identifier.session->call<attach::CmPlainReply>(
      identifier, attach::CmCommand::kReject, request);
  if (!reply) return std::unexpected(reply.error());
  identifier.stage = Stage::kOver;
  return {};
}

Result<void> start_disconnecting(Identifier& identifier) {
  if (identifier.verbs == nullptr) return fail(ErrorCode::kInvalid, "the id has no connection");
  ISTHMUS_TRY_VOID(qp_to_error(identifier));
  const auto reply = identifier.session->call<attach::CmPlainReply>(
      identifier, attach::CmCommand::kDisconnect, attach::CmPlainRequest{});
  if (!reply) return std::unexpected(reply.error());
  return complete(identifier);
}

}  // namespace isthmus::rdmacm

using namespace isthmus::rdmacm;

int rdma_connect(rdma_cm_id* id, rdma_conn_param* parameters) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  return outcome(start_connecting(**identifier, parameters));
}

int rdma_accept(rdma_cm_id* id, rdma_conn_param* parameters) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  return outcome(accept_request(**identifier, parameters));
}

int rdma_establish(rdma_cm_id* id) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  if (id->qp != nullptr) return failed(EINVAL);
  return outcome(follow_response(**identifier));
}

namespace {

int reject(rdma_cm_id* id, const void* private_data, std::uint8_t bytes, RejectReason reason) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  std::span<const std::byte> data;
  // SAFETY: the caller's own bytes, borrowed until return.
  if (private_data != nullptr) data = {static_cast<const std::byte*>(private_data), bytes};
  return outcome(reject_request(**identifier, data, reason));
}

}  // namespace

int rdma_reject(rdma_cm_id* id, const void* private_data, uint8_t private_data_len) {
  return reject(id, private_data, private_data_len, RejectReason::kConsumer);
}

int rdma_reject_ece(rdma_cm_id* id, const void* private_data, uint8_t private_data_len) {
  return reject(id, private_data, private_data_len, RejectReason::kVendorOption);
}

int rdma_notify(rdma_cm_id* id, ibv_event_type event) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  isthmus::attach::CmNotify request;
  request.event = static_cast<std::uint32_t>(event);
  return outcome((*identifier)->session->call<isthmus::attach::CmPlainReply>(
      **identifier, isthmus::attach::CmCommand::kNotify, request));
}

int rdma_disconnect(rdma_cm_id* id) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  return outcome(start_disconnecting(**identifier));
}

int rdma_init_qp_attr(rdma_cm_id* id, ibv_qp_attr* attributes, int* mask) {
  const auto identifier = Session::own(id);
  if (!identifier) return failed(identifier.error());
  if (attributes == nullptr || mask == nullptr) return failed(EINVAL);
  return outcome(init_qp_attributes(**identifier, attributes->qp_state, *attributes, *mask));
}
