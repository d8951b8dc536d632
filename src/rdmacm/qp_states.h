// Moving the QP of an id through its states, with the attributes that the daemon gives.
//
// Threading: as the Identifier.
#pragma once

#include "rdmacm/identifier.h"

namespace isthmus::rdmacm {

// The attributes for a change to `state`, as rdma_init_qp_attr returns them.
Result<void> init_qp_attributes(Identifier& identifier, ibv_qp_state state,
                                ibv_qp_attr& attributes, int& mask);

// A new QP, not yet the id's: to INIT; one for datagrams to RTS.
Result<void> prepare_qp(Identifier& identifier, ibv_qp& qp);

// These do nothing for an id without a QP.
inline constexpr std::uint8_t kAsNegotiated = 0xff;  // RDMA_MAX_RESP_RES, RDMA_MAX_INIT_DEPTH.
Result<void> qp_to_receive(Identifier& identifier, std::uint8_t responder_resources);
Result<void> qp_to_send(Identifier& identifier, std::uint8_t initiator_depth);
Result<void> qp_to_error(Identifier& identifier);

// What the active side does with a REP: QP to RTR and RTS, then RTU. On error the QP is in error.
Result<void> follow_response(Identifier& identifier);

}  // namespace isthmus::rdmacm
