// Whatever arrives on a cm connection or an event channel is one well-formed message or an error;
// what decodes holds what its header promises, and writes back to the same bytes.
#include "attach/cm_protocol.h"

#include <sys/socket.h>

#include <cstdlib>
#include <cstring>

using namespace isthmus;
using namespace isthmus::attach;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_address(const CmAddress& address) {
  sockaddr_storage storage{};
  // SAFETY: the sockets interface wants every address by the common base type.
  auto* generic = reinterpret_cast<sockaddr*>(&storage);
  const std::size_t bytes = write_sockaddr(address, generic);
  require(bytes <= sizeof storage);
  if (address.family == AF_INET || address.family == AF_INET6) {
    const auto back = cm_address_of(generic, bytes);
    require(back && back->family == address.family && back->port == address.port &&
            back->ip == address.ip);
  }
}

void check(const CmPlainRequest&) {}
void check(const CmCreateId&) {}
void check(const CmBindAddress& r) { check_address(r.address); }
void check(const CmResolveAddress& r) {
  check_address(r.source);
  check_address(r.destination);
}
void check(const CmResolveRoute&) {}
void check(const CmListen&) {}
void check(const CmConnect& r) { require(r.private_data.bytes <= r.private_data.data.size()); }
void check(const CmAccept& r) { require(r.private_data.bytes <= r.private_data.data.size()); }
void check(const CmReject& r) { require(r.private_data.bytes <= r.private_data.data.size()); }
void check(const CmNotify&) {}
void check(const CmInitQpAttributes&) {}
void check(const CmSetOption& r) { require(r.value_bytes <= r.value.size()); }
void check(const CmJoinMulticast& r) { check_address(r.group); }
void check(const CmLeaveMulticast&) {}
void check(const CmMigrateId&) {}
void check(const CmRestoreId& r) {
  check_address(r.route.source);
  check_address(r.route.destination);
}

template <class Reply>
void try_reply(std::span<const std::byte> bytes, CmCommand command) {
  const auto reply = decode_cm_reply<Reply>(bytes, command);
  if (reply) require(reply->header.command == command && reply->header.error >= 0);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::span<const std::byte> bytes = std::as_bytes(std::span{data, size});
  if (const auto request = decode_cm_request(bytes)) {
    require(static_cast<std::uint16_t>(header_of(*request).command) <= kCmLastCommand);
    std::visit(
        [&](const auto& r) {
          check(r);
          const auto back = bytes_of(r);
          require(back.size() == size && std::memcmp(back.data(), data, size) == 0);
        },
        *request);
  }
  if (const auto event = decode_cm_event(bytes)) {
    require(event->private_data.bytes <= event->private_data.data.size());
    require(static_cast<std::uint16_t>(event->type) <= kCmLastEventType);
    check_address(event->route.source);
  }
  for (const CmCommand command : {CmCommand::kCreateId, CmCommand::kQuery}) {
    try_reply<CmPlainReply>(bytes, command);
    try_reply<CmHandleReply>(bytes, command);
    try_reply<CmCountReply>(bytes, command);
    try_reply<CmRouteReply>(bytes, command);
    try_reply<CmQpAttributesReply>(bytes, command);
  }
  // SAFETY: cm_address_of reads no more than the size it is given, copied to be aligned.
  sockaddr_storage storage{};
  if (size > 0) std::memcpy(&storage, data, std::min(size, sizeof storage));
  (void)cm_address_of(reinterpret_cast<const sockaddr*>(&storage), std::min(size, sizeof storage));
  return 0;
}
