// Goal: every message arrives as it was sent, and nothing else is taken for one.
// Method: send one of each kind through bytes; cut, lengthen and change the bytes.
#include "farmem/remote/node_protocol.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

namespace isthmus::farmem {
namespace {

std::vector<std::byte> bytes_of(const EncodedNodeMessage& message) {
  return {message.span().begin(), message.span().end()};
}

template <class Part>
Part pass_request(const Part& part) {
  const auto decoded = decode_node_request(encode(7, NodeRequest{part}).span());
  EXPECT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->sequence, 7u);
  return std::get<Part>(decoded->body);
}

template <class Part>
Part pass_reply(const Part& part) {
  const auto decoded = decode_node_reply(encode(9, NodeReply{part}).span());
  EXPECT_TRUE(decoded.has_value());
  EXPECT_EQ(decoded->sequence, 9u);
  return std::get<Part>(decoded->body);
}

ChannelEnd some_end() {
  return {.qpn = 0xabcdef, .psn = 0x123456, .gid = {1, 2, 3}, .mtu = 3, .reads = 16};
}

Granted some_grant() {
  Granted granted{.free_bytes = 99, .count = 2};
  granted.slabs[0] = {.address = 0x7000'0000'0000, .rkey = 0xdeadbeef, .slab = 4};
  granted.slabs[1] = {.address = 0x7000'0400'0000, .rkey = 0xfeedface, .slab = 5};
  return granted;
}

TEST(NodeProtocol, CarriesRequests) {
  EXPECT_STREQ(pass_request(Hello{.token = {9}, .label = label_of("redis")}).label.data(), "redis");
  EXPECT_EQ(pass_request(Reserve{.slabs = kMostSlabsOfMessage}).slabs, kMostSlabsOfMessage);
  EXPECT_EQ(pass_request(Release{.slab = 17}).slab, 17u);
  EXPECT_EQ(pass_request(OpenChannel{some_end()}).end.qpn, 0xabcdefu);
  EXPECT_EQ(pass_request(CloseChannel{.qpn = 5}).qpn, 5u);
  (void)pass_request(KeepAlive{.heirs = Heirs::kNone});
}

TEST(NodeProtocol, CarriesReplies) {
  const Welcome welcome{.token = {1, 2},
                        .node_id = 77,
                        .free_bytes = 1ull << 40,
                        .slab_bytes = 64u << 20,
                        .lease_ms = 10'000};
  EXPECT_EQ(pass_reply(welcome).node_id, 77u);
  EXPECT_EQ(pass_reply(Done{.free_bytes = 3}).free_bytes, 3u);
  EXPECT_EQ(pass_reply(ChannelOpened{some_end()}).end.psn, 0x123456u);
  const Granted granted = pass_reply(some_grant());
  EXPECT_EQ(granted.count, 2u);
  EXPECT_EQ(granted.slabs[1].rkey, 0xfeedfaceu);
  const Refused refused = pass_reply(refuse(RefusalReason::kFull, "no slab is free"));
  EXPECT_EQ(refused.reason, RefusalReason::kFull);
  EXPECT_STREQ(refused.text.data(), "no slab is free");
}

TEST(NodeProtocol, CutsTextThatIsTooLong) {
  const std::string text(500, 'x');
  EXPECT_EQ(std::string(label_of(text).data()).size(), 63u);
  EXPECT_EQ(std::string(refuse(RefusalReason::kFailed, text).text.data()).size(), 123u);
}

TEST(NodeProtocol, TakesNoOtherLength) {
  for (auto bytes : {bytes_of(encode(1, NodeRequest{KeepAlive{}})),
                     bytes_of(encode(1, NodeRequest{Hello{}})),
                     bytes_of(encode(1, NodeRequest{OpenChannel{some_end()}}))}) {
    for (std::size_t count = 0; count < bytes.size(); ++count) {
      EXPECT_FALSE(decode_node_request(std::span(bytes).first(count))) << count;
    }
    bytes.push_back(std::byte{0});
    EXPECT_FALSE(decode_node_request(bytes));
  }
  auto grant = bytes_of(encode(1, NodeReply{some_grant()}));
  EXPECT_FALSE(decode_node_reply(std::span(grant).first(grant.size() - sizeof(SlabGrant))));
  // A count far past the bytes that follow it.
  const std::uint32_t many = 0xffff'ffff;
  std::memcpy(grant.data() + sizeof(NodeHeader) + offsetof(Granted, count), &many, sizeof(many));
  EXPECT_FALSE(decode_node_reply(grant));
}

TEST(NodeProtocol, TakesNoOtherMagicVersionKindOrDirection) {
  const auto good = bytes_of(encode(1, NodeRequest{KeepAlive{}}));
  EXPECT_FALSE(decode_node_reply(good));
  for (const std::size_t place : {offsetof(NodeHeader, magic), offsetof(NodeHeader, version),
                                  offsetof(NodeHeader, kind)}) {
    auto bad = good;
    bad[place] ^= std::byte{0x50};
    EXPECT_FALSE(decode_node_request(bad)) << place;
  }
  auto none = good;
  none[offsetof(NodeHeader, kind)] = std::byte{0};
  EXPECT_FALSE(decode_node_request(none));
  auto later = good;
  later[offsetof(NodeHeader, version)] = std::byte{2};
  EXPECT_EQ(decode_node_request(later).error().code, ErrorCode::kUnsupported);
}

TEST(NodeProtocol, TakesNothingOutOfRange) {
  const auto refused = [](const NodeRequest& request) {
    return !decode_node_request(encode(1, request).span());
  };
  EXPECT_TRUE(refused(Reserve{.slabs = 0}));
  EXPECT_TRUE(refused(Reserve{.slabs = kMostSlabsOfMessage + 1}));
  Hello endless;
  endless.label.fill('x');
  EXPECT_TRUE(refused(endless));
  for (const auto change : {+[](ChannelEnd& end) { end.qpn = 1u << 24; },
                            +[](ChannelEnd& end) { end.psn = 1u << 24; },
                            +[](ChannelEnd& end) { end.mtu = 0; },
                            +[](ChannelEnd& end) { end.mtu = 6; },
                            +[](ChannelEnd& end) { end.reads = 0; },
                            +[](ChannelEnd& end) { end.reads = 129; }}) {
    ChannelEnd end = some_end();
    change(end);
    EXPECT_TRUE(refused(OpenChannel{end}));
  }
  EXPECT_FALSE(decode_node_reply(
      encode(1, NodeReply{Welcome{.slab_bytes = 5000, .lease_ms = 1}}).span()));
  EXPECT_FALSE(decode_node_reply(
      encode(1, NodeReply{Refused{.reason = static_cast<RefusalReason>(99)}}).span()));
}

}  // namespace
}  // namespace isthmus::farmem
