// Goal: the decoders take every message that we make and nothing that deviates from it.
// Method: each message once as it should be, then with each of its promises broken.
#include "attach/attach_protocol.h"

#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <vector>

namespace isthmus::attach {
namespace {

template <class T>
std::vector<std::byte> bytes(const T& message) {
  const auto view = message_bytes(message);
  return {view.begin(), view.end()};
}

Hello good_hello() {
  return Hello{.kind = ConnectionKind::kFunction,
               .process_id = 7,
               .label = text_of<64>("db-1"),
               .program = text_of<64>("ib_write_bw")};
}

TEST(AttachProtocol, ReadsWhatItWrites) {
  const auto hello = decode_hello(bytes(good_hello()));
  ASSERT_TRUE(hello) << hello.error().message;
  EXPECT_STREQ(hello->label.data(), "db-1");

  const auto admit = decode_function_request(
      bytes(Admit{.qpn = 0x4001, .dest_qpn = 0x8002, .transport = IBV_QPT_RC}));
  ASSERT_TRUE(admit);
  EXPECT_EQ(std::get<Admit>(*admit).dest_qpn, 0x8002u);
  EXPECT_TRUE(std::holds_alternative<Release>(
      *decode_function_request(bytes(Release{.qpn = 0x4001}))));
  EXPECT_EQ(decode_acknowledge(bytes(Acknowledge{.number = 9}))->number, 9u);
  EXPECT_TRUE(decode_welcome(bytes(Welcome{})));
  EXPECT_TRUE(decode_grant(bytes(Grant{.function = 1, .udp_count = 2})));
  EXPECT_TRUE(decode_admission(bytes(AdmissionReply{.has_neighbour = 1, .function = 1})));
  EXPECT_TRUE(decode_event(bytes(Event{.kind = EventKind::kRevoke, .qpn = 1})));
  EXPECT_TRUE(decode_event(bytes(GidsChanged{})));
}

TEST(AttachProtocol, BringsTheDaemonsErrorBack) {
  const Error error{ErrorCode::kDenied, "policy rule \"x\" says no"};
  const auto admission = decode_admission(bytes(failure_of(error)));
  ASSERT_FALSE(admission);
  EXPECT_EQ(admission.error().code, ErrorCode::kDenied);
  EXPECT_EQ(admission.error().message, error.message);
}

TEST(AttachProtocol, CutsTextThatIsTooLong) {
  const std::string text(1000, 'x');
  EXPECT_EQ(std::string(text_of<64>(text).data()).size(), 63u);
}

TEST(AttachProtocol, RefusesEveryOtherLength) {
  auto message = bytes(good_hello());
  for (std::size_t length = 0; length < message.size(); ++length) {
    EXPECT_FALSE(decode_hello(std::span(message).first(length))) << length;
  }
  message.push_back(std::byte{0});
  EXPECT_FALSE(decode_hello(message));
}

template <class Change>
bool accepts_hello_with(Change change) {
  Hello hello = good_hello();
  change(hello);
  return decode_hello(bytes(hello)).has_value();
}

TEST(AttachProtocol, RefusesAHelloThatMakesNoSense) {
  EXPECT_FALSE(accepts_hello_with([](Hello& h) { h.header.magic ^= 1; }));
  EXPECT_FALSE(accepts_hello_with([](Hello& h) { h.header.version = 99; }));
  EXPECT_FALSE(accepts_hello_with([](Hello& h) { h.header.type = AttachMessageType::kGrant; }));
  EXPECT_FALSE(accepts_hello_with([](Hello& h) { h.kind = ConnectionKind{77}; }));
  EXPECT_FALSE(accepts_hello_with([](Hello& h) { h.channel = ChannelWish{2}; }));
  EXPECT_FALSE(accepts_hello_with([](Hello& h) { h.process_id = -1; }));
  EXPECT_FALSE(accepts_hello_with([](Hello& h) { h.label.fill('x'); }));
  EXPECT_FALSE(accepts_hello_with([](Hello& h) { h.program.fill('x'); }));
  const auto reattach = [](std::uint32_t function) {
    return accepts_hello_with([&](Hello& h) {
      h.kind = ConnectionKind::kReattach;
      h.function = function;
    });
  };
  EXPECT_TRUE(reattach(1023));
  EXPECT_FALSE(reattach(0));
  EXPECT_FALSE(reattach(1024));
}

TEST(AttachProtocol, RefusesRequestsOutOfRange) {
  const Admit good{.qpn = 1, .dest_qpn = 2, .transport = IBV_QPT_RC};
  EXPECT_TRUE(decode_function_request(bytes(good)));
  Admit bad = good;
  bad.qpn = 1u << 24;
  EXPECT_FALSE(decode_function_request(bytes(bad)));
  bad = good;
  bad.dest_qpn = UINT32_MAX;
  EXPECT_FALSE(decode_function_request(bytes(bad)));
  bad = good;
  bad.transport = IBV_QPT_UD;
  EXPECT_FALSE(decode_function_request(bytes(bad)));
  EXPECT_FALSE(decode_function_request(bytes(Release{.qpn = 1u << 24})));
}

TEST(AttachProtocol, RefusesAnswersAndEventsOutOfRange) {
  EXPECT_FALSE(decode_grant(bytes(Grant{.function = 0, .udp_count = 1})));
  EXPECT_FALSE(decode_grant(bytes(Grant{.function = 1, .udp_count = 0})));
  EXPECT_FALSE(decode_grant(bytes(Grant{.function = 1, .udp_count = kMaxUdpSockets + 1})));
  Grant many{.function = 1, .udp_count = 1};
  many.gids.count = rdma::kMaxGids + 1;
  EXPECT_FALSE(decode_grant(bytes(many)));
  EXPECT_FALSE(decode_admission(bytes(AdmissionReply{.has_neighbour = 2})));
  EXPECT_FALSE(decode_admission(bytes(AdmissionReply{.has_neighbour = 1, .function = 0})));
  EXPECT_FALSE(decode_admission(bytes(AdmissionReply{.allowed_access = 1u << 20})));
  EXPECT_FALSE(decode_event(bytes(Event{.kind = EventKind{0}})));
  EXPECT_FALSE(decode_event(bytes(Event{.kind = EventKind{6}})));
  EXPECT_FALSE(decode_event(bytes(Event{.kind = EventKind::kChannel, .channel = 2})));
  EXPECT_FALSE(decode_admission(bytes(Failure{.error = 0})));
}

}  // namespace
}  // namespace isthmus::attach
