// The steps of a connection as the library's own parts take them: the C functions, endpoints and
// rsockets. Each is one exchange with the daemon; for a synchronous id it also waits for the event
// that answers it.
//
// Threading: as the Identifier.
#pragma once

#include <span>

#include "rdmacm/identifier.h"

namespace isthmus::rdmacm {

// Of a number from the program, which C lets be anything.
bool is_port_space(int number);

// Null gives family 0, no address.
Result<attach::CmAddress> address_of(const sockaddr* address);

// For a synchronous id: waits for the next event, keeps it in id->event, returns its status as an
// error. For others: nothing.
Result<void> complete(Identifier& identifier);

Result<void> bind_address(Identifier& identifier, const attach::CmAddress& address);
Result<void> resolve_address(Identifier& identifier, const attach::CmAddress& source,
                             const attach::CmAddress& destination, int timeout_ms);
Result<void> resolve_route(Identifier& identifier, int timeout_ms);
Result<void> start_listening(Identifier& identifier, int backlog);
Result<void> set_option(Identifier& identifier, int level, int name,
                        std::span<const std::byte> value);

// `parameters` null: what the QP of the id and its device give.
Result<void> start_connecting(Identifier& identifier, const rdma_conn_param* parameters);
Result<void> accept_request(Identifier& identifier, const rdma_conn_param* parameters);

enum class RejectReason : std::uint16_t { kConsumer = 28, kVendorOption = 35 };
Result<void> reject_request(Identifier& identifier, std::span<const std::byte> private_data,
                            RejectReason reason);
Result<void> start_disconnecting(Identifier& identifier);

}  // namespace isthmus::rdmacm
