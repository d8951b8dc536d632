// The messages between a program whose memory is far and a memory node.
//
// Primer: a program has one control connection to each node, by the connection manager, over which
// requests and replies go as messages (SEND); a reply carries the sequence number of its request.
//
//     Hello         -> Welcome        begins a session, or joins one by its token
//     Reserve       -> Granted        slabs of memory: fewer than asked for when there are not more
//     Release       -> Done           gives a slab back
//     OpenChannel   -> ChannelOpened  joins a queue pair of the client's with one of the node's
//     CloseChannel  -> Done
//     KeepAlive     -> Done           in time, or the node takes all of it back
//
// or -> Refused, with the reason. Pages themselves move by RDMA on channels, without messages, and
// without the node's doing anything.
//
// Byte order is little endian; text is padded with zeros. Every message has exactly the size that
// its kind and count ask for.
//
// Input: messages come from the network; the decoders accept only what is in range.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "base/result.h"

namespace isthmus::farmem {

constexpr std::uint32_t kNodeMagic = 0x4e'46'53'49;  // "ISFN"
constexpr std::uint16_t kNodeVersion = 1;
// A receive buffer of this size takes any message of this file.
constexpr std::size_t kMaxNodeMessageBytes = 4096;

// What a session is known by; nobody can guess it. All zeros: none.
using SessionToken = std::array<std::uint8_t, 16>;
using Gid = std::array<std::uint8_t, 16>;

struct NodeHeader {
  std::uint32_t magic = kNodeMagic;
  std::uint16_t version = kNodeVersion;
  std::uint8_t kind = 0;
  std::uint8_t reserved = 0;
  std::uint32_t sequence = 0;
  std::uint32_t reserved_too = 0;
};
static_assert(sizeof(NodeHeader) == 16);

struct Hello {
  SessionToken token{};  // Zeros: a new session.
  std::array<char, 64> label{};
};
static_assert(sizeof(Hello) == 80);

struct Welcome {
  SessionToken token{};
  std::uint64_t node_id = 0;  // Drawn when the node starts: a node that was restarted is another.
  std::uint64_t free_bytes = 0;
  std::uint64_t slab_bytes = 0;
  std::uint32_t lease_ms = 0;
  std::uint32_t reserved = 0;
};
static_assert(sizeof(Welcome) == 48);

struct Reserve {
  std::uint32_t slabs = 0;  // 1 to kMostSlabsOfMessage.
  std::uint32_t reserved = 0;
};

struct SlabGrant {
  std::uint64_t address = 0;
  std::uint32_t rkey = 0;
  std::uint32_t slab = 0;  // Its number, for Release.
};
static_assert(sizeof(SlabGrant) == 16);

constexpr std::uint32_t kMostSlabsOfMessage = 240;

struct Granted {
  std::uint64_t free_bytes = 0;  // After it.
  std::uint32_t count = 0;
  std::uint32_t reserved = 0;
  std::array<SlabGrant, kMostSlabsOfMessage> slabs{};  // On the wire: the first `count`.
};
static_assert(sizeof(NodeHeader) + sizeof(Granted) <= kMaxNodeMessageBytes);

struct Release {
  std::uint32_t slab = 0;
  std::uint32_t reserved = 0;
};

// One end of a channel: what the other end's queue pair has to know.
struct ChannelEnd {
  std::uint32_t qpn = 0;  // 24 bits, as the first PSN.
  std::uint32_t psn = 0;
  Gid gid{};
  std::uint8_t mtu = 0;    // An ibv_mtu: what this end's path carries.
  std::uint8_t reads = 0;  // RDMA READs that it can have or serve at a time.
  std::array<std::uint8_t, 6> reserved{};
};
static_assert(sizeof(ChannelEnd) == 32);

struct OpenChannel {
  ChannelEnd end;
};
struct ChannelOpened {
  ChannelEnd end;
};
struct CloseChannel {
  std::uint32_t qpn = 0;  // Of the node's end.
  std::uint32_t reserved = 0;
};

enum class Heirs : std::uint32_t {
  kUnsaid,
  kExpected,  // Others may join the session by its token, for a lease from now, though its last
              // connection end.
  kNone,      // Nobody will any more.
};

struct KeepAlive {
  Heirs heirs = Heirs::kUnsaid;
  std::uint32_t reserved = 0;
};

struct Done {
  std::uint64_t free_bytes = 0;
};

enum class RefusalReason : std::uint32_t {
  kMalformed = 1,  // A message that makes no sense, or at this time.
  kFull = 2,       // Nothing free.
  kDraining = 3,   // No new leases.
  kNoSession = 4,  // Of this token; perhaps its lease has ended.
  kLimit = 5,      // Too many sessions or channels.
  kFailed = 6,     // The node's own device or memory.
};
constexpr RefusalReason kLastReason = RefusalReason::kFailed;

struct Refused {
  RefusalReason reason = RefusalReason::kMalformed;
  std::array<char, 124> text{};  // For a person.
};
static_assert(sizeof(Refused) == 128);

using NodeRequest =
    std::variant<Hello, Reserve, Release, OpenChannel, CloseChannel, KeepAlive>;
using NodeReply = std::variant<Welcome, Granted, Done, ChannelOpened, Refused>;

template <class Body>
struct Sequenced {
  std::uint32_t sequence = 0;
  Body body;
};

struct EncodedNodeMessage {
  std::array<std::byte, kMaxNodeMessageBytes> bytes;
  std::size_t count = 0;
  std::span<const std::byte> span() const { return std::span(bytes).first(count); }
};

EncodedNodeMessage encode(std::uint32_t sequence, const NodeRequest& request);
EncodedNodeMessage encode(std::uint32_t sequence, const NodeReply& reply);

// kUnsupported: another version. kInvalid: anything else that is wrong. `bytes` must not change
// meanwhile.
Result<Sequenced<NodeRequest>> decode_node_request(std::span<const std::byte> bytes);
Result<Sequenced<NodeReply>> decode_node_reply(std::span<const std::byte> bytes);

Refused refuse(RefusalReason reason, std::string_view text);
ErrorCode error_code_of(RefusalReason reason);

// Cut where it does not fit.
std::array<char, 64> label_of(std::string_view text);

}  // namespace isthmus::farmem
