#include "farmem/remote/node_protocol.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>

#include "base/assert.h"

namespace isthmus::farmem {
namespace {

static_assert(std::endian::native == std::endian::little, "structs go as they are");

constexpr std::uint32_t kMask24 = 0xff'ffff;
constexpr std::uint8_t kLeastMtu = 1;  // IBV_MTU_256
constexpr std::uint8_t kMostMtu = 5;   // IBV_MTU_4096
constexpr std::uint8_t kMostReads = 128;
constexpr std::size_t kGrantedHeadBytes = offsetof(Granted, slabs);
constexpr std::uint8_t kReplyBit = 0x80;

// The kind of a message is the place of its struct in the variant, from 1.
template <class Body>
std::uint8_t kind_of(const Body& body) {
  const auto place = static_cast<std::uint8_t>(body.index() + 1);
  return std::is_same_v<Body, NodeReply> ? static_cast<std::uint8_t>(place | kReplyBit) : place;
}

std::size_t bytes_of(const auto& body) { return sizeof(body); }
std::size_t bytes_of(const Granted& granted) {
  ISTHMUS_ASSERT(granted.count <= kMostSlabsOfMessage);
  return kGrantedHeadBytes + granted.count * sizeof(SlabGrant);
}

template <class Body>
EncodedNodeMessage encode_any(std::uint32_t sequence, const Body& body) {
  EncodedNodeMessage message;
  const NodeHeader header{.kind = kind_of(body), .sequence = sequence};
  std::memcpy(message.bytes.data(), &header, sizeof(header));
  std::visit(
      [&](const auto& part) {
        static_assert(std::has_unique_object_representations_v<std::decay_t<decltype(part)>>);
        const std::size_t bytes = bytes_of(part);
        std::memcpy(message.bytes.data() + sizeof(header), &part, bytes);
        message.count = sizeof(header) + bytes;
      },
      body);
  return message;
}

template <std::size_t kSize>
bool ends(const std::array<char, kSize>& text) {
  return std::ranges::find(text, '\0') != text.end();
}

bool is_sound(const Hello& hello) { return ends(hello.label); }
bool is_sound(const Reserve& reserve) {
  return reserve.slabs > 0 && reserve.slabs <= kMostSlabsOfMessage;
}
bool is_sound(const Release&) { return true; }
bool is_sound(const ChannelEnd& end) {
  return end.qpn <= kMask24 && end.psn <= kMask24 && end.mtu >= kLeastMtu && end.mtu <= kMostMtu &&
         end.reads > 0 && end.reads <= kMostReads;
}
bool is_sound(const OpenChannel& open) { return is_sound(open.end); }
bool is_sound(const ChannelOpened& opened) { return is_sound(opened.end); }
bool is_sound(const CloseChannel& close) { return close.qpn <= kMask24; }
bool is_sound(const KeepAlive& alive) { return alive.heirs <= Heirs::kNone; }
bool is_sound(const Welcome& welcome) {
  return std::has_single_bit(welcome.slab_bytes) && welcome.slab_bytes >= 4096 &&
         welcome.lease_ms > 0;
}
bool is_sound(const Granted&) { return true; }
bool is_sound(const Done&) { return true; }
bool is_sound(const Refused& refused) {
  return refused.reason >= RefusalReason::kMalformed && refused.reason <= kLastReason &&
         ends(refused.text);
}

template <class Part>
bool take(std::span<const std::byte> bytes, Part& part) {
  if (bytes.size() != sizeof(part)) return false;
  std::memcpy(&part, bytes.data(), sizeof(part));
  return true;
}

bool take(std::span<const std::byte> bytes, Granted& granted) {
  if (bytes.size() < kGrantedHeadBytes) return false;
  // SAFETY: a trivially copyable struct; its head is what precedes the slabs.
  std::memcpy(reinterpret_cast<std::byte*>(&granted), bytes.data(), kGrantedHeadBytes);
  if (granted.count > kMostSlabsOfMessage || bytes.size() != bytes_of(granted)) return false;
  std::memcpy(granted.slabs.data(), bytes.data() + kGrantedHeadBytes,
              granted.count * sizeof(SlabGrant));
  return true;
}

template <class Body, std::size_t kPlace = 0>
Result<Body> decode_body(std::size_t place, std::span<const std::byte> bytes) {
  if constexpr (kPlace < std::variant_size_v<Body>) {
    if (place != kPlace) return decode_body<Body, kPlace + 1>(place, bytes);
    std::variant_alternative_t<kPlace, Body> part{};
    if (!take(bytes, part) || !is_sound(part)) {
      return fail(ErrorCode::kInvalid, "a message of kind %zu does not hold what it should", place);
    }
    return Body{part};
  }
  return fail(ErrorCode::kInvalid, "a message of an unknown kind");
}

template <class Body>
Result<Sequenced<Body>> decode_any(std::span<const std::byte> bytes) {
  NodeHeader header;
  if (bytes.size() < sizeof(header) || bytes.size() > kMaxNodeMessageBytes) {
    return fail(ErrorCode::kInvalid, "a message of %zu bytes", bytes.size());
  }
  std::memcpy(&header, bytes.data(), sizeof(header));
  if (header.magic != kNodeMagic) return fail(ErrorCode::kInvalid, "no message of a memory node");
  if (header.version != kNodeVersion) {
    return fail(ErrorCode::kUnsupported, "version %u of the memory node protocol; this is %u",
                header.version, kNodeVersion);
  }
  const bool is_reply = (header.kind & kReplyBit) != 0;
  if (is_reply != std::is_same_v<Body, NodeReply>) {
    return fail(ErrorCode::kInvalid, "a message in the wrong direction");
  }
  const std::size_t place = (header.kind & ~std::size_t{kReplyBit}) - 1;
  return Sequenced<Body>{
      .sequence = header.sequence,
      .body = ISTHMUS_TRY(decode_body<Body>(place, bytes.subspan(sizeof(header))))};
}

}  // namespace

EncodedNodeMessage encode(std::uint32_t sequence, const NodeRequest& request) {
  return encode_any(sequence, request);
}

EncodedNodeMessage encode(std::uint32_t sequence, const NodeReply& reply) {
  return encode_any(sequence, reply);
}

Result<Sequenced<NodeRequest>> decode_node_request(std::span<const std::byte> bytes) {
  return decode_any<NodeRequest>(bytes);
}

Result<Sequenced<NodeReply>> decode_node_reply(std::span<const std::byte> bytes) {
  return decode_any<NodeReply>(bytes);
}

Refused refuse(RefusalReason reason, std::string_view text) {
  Refused refused{.reason = reason, .text = {}};
  text.copy(refused.text.data(), refused.text.size() - 1);
  return refused;
}

ErrorCode error_code_of(RefusalReason reason) {
  switch (reason) {
    case RefusalReason::kMalformed: return ErrorCode::kInvalid;
    case RefusalReason::kFull: return ErrorCode::kNoMemory;
    case RefusalReason::kDraining: return ErrorCode::kBusy;
    case RefusalReason::kNoSession: return ErrorCode::kNotFound;
    case RefusalReason::kLimit: return ErrorCode::kNoMemory;
    case RefusalReason::kFailed: return ErrorCode::kIo;
  }
  return ErrorCode::kIo;
}

std::array<char, 64> label_of(std::string_view text) {
  std::array<char, 64> label{};
  text.copy(label.data(), label.size() - 1);
  return label;
}

}  // namespace isthmus::farmem
