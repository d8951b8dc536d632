#include "rdmacm/qp_states.h"

#include "rdmacm/failure.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {
namespace {

Result<void> modify(ibv_qp& qp, ibv_qp_attr& attributes, int mask, const char* what) {
  const int error = ibv_modify_qp(&qp, &attributes, mask);
  if (error != 0) return fail_with(error > 0 ? error : errno, what);
  return {};
}

Result<void> init_and_modify(Identifier& identifier, ibv_qp& qp, ibv_qp_state state) {
  ibv_qp_attr attributes{};
  int mask = 0;
  ISTHMUS_TRY_VOID(init_qp_attributes(identifier, state, attributes, mask));
  return modify(qp, attributes, mask, "change the state of a QP");
}

}  // namespace

Result<void> init_qp_attributes(Identifier& identifier, ibv_qp_state state,
                                ibv_qp_attr& attributes, int& mask) {
  attach::CmInitQpAttributes request;
  request.qp_state = static_cast<std::uint32_t>(state);
  const auto reply = ISTHMUS_TRY(identifier.session->call<attach::CmQpAttributesReply>(
      identifier, attach::CmCommand::kInitQpAttributes, request));
  to_verbs(reply, attributes, mask);
  std::lock_guard lock(identifier.facts_mutex);
  if ((mask & IBV_QP_DEST_QPN) != 0) identifier.facts.remote_qpn = reply.dest_qpn;
  if (reply.local_communication_id != 0) {
    identifier.facts.local_communication_id = reply.local_communication_id;
    identifier.facts.remote_communication_id = reply.remote_communication_id;
  }
  return {};
}

Result<void> prepare_qp(Identifier& identifier, ibv_qp& qp) {
  ISTHMUS_TRY_VOID(init_and_modify(identifier, qp, IBV_QPS_INIT));
  if (!identifier.is_datagram()) return {};
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_RTR;
  ISTHMUS_TRY_VOID(modify(qp, attributes, IBV_QP_STATE, "let a datagram QP receive"));
  attributes.qp_state = IBV_QPS_RTS;
  return modify(qp, attributes, IBV_QP_STATE | IBV_QP_SQ_PSN, "let a datagram QP send");
}

Result<void> qp_to_receive(Identifier& identifier, std::uint8_t responder_resources) {
  if (identifier.qp == nullptr) return {};
  // INIT again: the access rights are known only now.
  ISTHMUS_TRY_VOID(init_and_modify(identifier, *identifier.qp, IBV_QPS_INIT));
  ibv_qp_attr attributes{};
  int mask = 0;
  ISTHMUS_TRY_VOID(init_qp_attributes(identifier, IBV_QPS_RTR, attributes, mask));
  if (responder_resources != kAsNegotiated) attributes.max_dest_rd_atomic = responder_resources;
  return modify(*identifier.qp, attributes, mask, "let a QP receive");
}

Result<void> qp_to_send(Identifier& identifier, std::uint8_t initiator_depth) {
  if (identifier.qp == nullptr) return {};
  ibv_qp_attr attributes{};
  int mask = 0;
  ISTHMUS_TRY_VOID(init_qp_attributes(identifier, IBV_QPS_RTS, attributes, mask));
  if (initiator_depth != kAsNegotiated) attributes.max_rd_atomic = initiator_depth;
  return modify(*identifier.qp, attributes, mask, "let a QP send");
}

Result<void> qp_to_error(Identifier& identifier) {
  if (identifier.qp == nullptr) return {};
  ibv_qp_attr attributes{};
  attributes.qp_state = IBV_QPS_ERR;
  return modify(*identifier.qp, attributes, IBV_QP_STATE, "stop a QP");
}

Result<void> follow_response(Identifier& identifier) {
  const auto follow = [&]() -> Result<void> {
    ISTHMUS_TRY_VOID(qp_to_receive(identifier, kAsNegotiated));
    ISTHMUS_TRY_VOID(qp_to_send(identifier, kAsNegotiated));
    const auto reply = identifier.session->call<attach::CmPlainReply>(
        identifier, attach::CmCommand::kEstablish, attach::CmPlainRequest{});
    if (!reply) return std::unexpected(reply.error());
    identifier.stage = Stage::kEstablished;
    return {};
  };
  Result<void> followed = follow();
  if (!followed) static_cast<void>(qp_to_error(identifier));
  return followed;
}

}  // namespace isthmus::rdmacm
