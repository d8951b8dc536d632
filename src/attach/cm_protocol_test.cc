// Goal: the decoders take exactly what the encoders make.
// Method: each message at its size, one byte off it, and with each field out of range.
#include "attach/cm_protocol.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <infiniband/ib.h>
#include <sys/socket.h>

#include <cstring>
#include <vector>

namespace isthmus::attach {
namespace {

template <class T>
T with_command(T request, CmCommand command) {
  request.header.command = command;
  return request;
}

template <class T>
bool decodes(const T& request) {
  return decode_cm_request(bytes_of(request)).has_value();
}

TEST(CmProtocol, DecodesOnlyTheExactSize) {
  const auto request = with_command(CmListen{.backlog = 3}, CmCommand::kListen);
  const auto bytes = bytes_of(request);
  const auto decoded = decode_cm_request(bytes);
  ASSERT_TRUE(decoded);
  EXPECT_EQ(std::get<CmListen>(*decoded).backlog, 3);
  EXPECT_EQ(header_of(*decoded).command, CmCommand::kListen);
  EXPECT_FALSE(decode_cm_request(bytes.first(bytes.size() - 1)));
  EXPECT_FALSE(decode_cm_request(bytes.first(3)));
  EXPECT_FALSE(decode_cm_request({}));
  std::vector<std::byte> longer(bytes.begin(), bytes.end());
  longer.push_back({});
  EXPECT_FALSE(decode_cm_request(longer));
}

TEST(CmProtocol, ChecksEveryField) {
  auto listen = with_command(CmListen{}, CmCommand::kListen);
  listen.header.version = kCmProtocolVersion + 1;
  EXPECT_FALSE(decodes(listen));
  EXPECT_FALSE(decodes(with_command(CmListen{}, static_cast<CmCommand>(0))));
  EXPECT_FALSE(decodes(with_command(CmListen{}, static_cast<CmCommand>(kCmLastCommand + 1))));

  EXPECT_FALSE(decodes(with_command(CmCreateId{}, CmCommand::kCreateId)));
  EXPECT_TRUE(decodes(with_command(CmCreateId{.port_space = CmPortSpace::kIb},
                                   CmCommand::kCreateId)));
  auto bind = with_command(CmBindAddress{.address = {.family = 99}}, CmCommand::kBindAddress);
  EXPECT_FALSE(decodes(bind));
  bind.address.family = AF_INET;  // But not in the form of an IPv4 address.
  EXPECT_FALSE(decodes(bind));
  auto connect = with_command(CmConnect{}, CmCommand::kConnect);
  EXPECT_TRUE(decodes(connect));
  connect.parameters.qpn = 1u << 24;
  EXPECT_FALSE(decodes(connect));
  connect.parameters.qpn = 0;
  connect.private_data.bytes = kCmPrivateBytes + 1;
  EXPECT_FALSE(decodes(connect));
  EXPECT_FALSE(decodes(with_command(CmSetOption{.value_bytes = 257}, CmCommand::kSetOption)));

  CmEvent event;
  EXPECT_TRUE(decode_cm_event(bytes_of(event)));
  event.type = static_cast<CmEventType>(kCmLastEventType + 1);
  EXPECT_FALSE(decode_cm_event(bytes_of(event)));
}

TEST(CmProtocol, AFailedReplyIsItsHeader) {
  CmPlainReply failure;
  failure.header = {.command = CmCommand::kQuery, .sequence = 5, .error = EINVAL};
  const auto reply = decode_cm_reply<CmRouteReply>(bytes_of(failure), CmCommand::kQuery);
  ASSERT_TRUE(reply);
  EXPECT_EQ(reply->header.error, EINVAL);
  EXPECT_EQ(reply->header.sequence, 5u);
  EXPECT_FALSE(decode_cm_reply<CmRouteReply>(bytes_of(failure), CmCommand::kListen));
  failure.header.error = 0;
  EXPECT_FALSE(decode_cm_reply<CmRouteReply>(bytes_of(failure), CmCommand::kQuery));
}

TEST(CmProtocol, AddressesComeBack) {
  sockaddr_in v4{.sin_family = AF_INET, .sin_port = htons(7471), .sin_addr = {}, .sin_zero = {}};
  inet_pton(AF_INET, "10.1.2.3", &v4.sin_addr);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(7471);
  v6.sin6_scope_id = 3;
  inet_pton(AF_INET6, "fe80::7", &v6.sin6_addr);
  sockaddr_ib ib{};
  ib.sib_family = AF_IB;
  ib.sib_pkey = 0xffff;
  ib.sib_sid = htobe64(0x0106'1d2f);
  ib.sib_sid_mask = ~0ull;
  const auto check = [](const auto& address) {
    // SAFETY: the sockets interface wants every address by the common base type.
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    const auto message = cm_address_of(generic, sizeof address);
    ASSERT_TRUE(message);
    sockaddr_storage back{};
    ASSERT_EQ(write_sockaddr(*message, reinterpret_cast<sockaddr*>(&back)), sizeof address);
    EXPECT_EQ(std::memcmp(&back, &address, sizeof address), 0);
    EXPECT_FALSE(cm_address_of(generic, sizeof address - 1));
  };
  check(v4);
  check(v6);
  check(ib);
  EXPECT_EQ(cm_address_of(nullptr, 0)->family, 0);
  EXPECT_EQ(write_sockaddr(CmAddress{}, nullptr), 0u);
}

}  // namespace
}  // namespace isthmus::attach
