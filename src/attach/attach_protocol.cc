#include "attach/attach_protocol.h"

#include <infiniband/verbs.h>

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "rdma/window.h"

namespace isthmus::attach {
namespace {

constexpr std::uint32_t kQpnMask = 0x00ff'ffff;
constexpr std::uint32_t kRemoteAccess =
    IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ | IBV_ACCESS_REMOTE_ATOMIC;

static_assert(sizeof(Grant) <= kAttachMaxMessageBytes);
static_assert(sizeof(GidsChanged) <= kAttachMaxMessageBytes);

template <std::size_t kBytes>
bool ends(const Text<kBytes>& text) {
  return std::ranges::find(text, '\0') != text.end();
}

bool is_function(std::uint32_t function) { return function > 0 && function < rdma::kFunctionCount; }

// What a message must hold beyond its size and header.
bool is_valid(const Hello& hello) {
  const bool known = hello.kind == ConnectionKind::kFunction || hello.kind == ConnectionKind::kCm ||
                     hello.kind == ConnectionKind::kHold ||
                     (hello.kind == ConnectionKind::kReattach && is_function(hello.function));
  const bool channel =
      hello.channel == ChannelWish::kAuto || hello.channel == ChannelWish::kRoce;
  return known && channel && hello.process_id >= 0 && ends(hello.label) && ends(hello.program);
}

bool is_valid(const Failure& failure) { return failure.error > 0 && ends(failure.text); }

bool is_valid(const Welcome&) { return true; }

bool is_valid(const GidTable& gids) {
  return gids.count <= gids.entries.size() &&
         std::ranges::all_of(gids.entries,
                             [](const GidEntry& entry) { return ends(entry.interface_name); });
}

bool is_valid(const Grant& grant) {
  return is_function(grant.function) && grant.udp_count >= 1 &&
         grant.udp_count <= kMaxUdpSockets && is_valid(grant.gids);
}

bool is_valid(const Admit& admit) {
  const bool transport = admit.transport == IBV_QPT_RC || admit.transport == IBV_QPT_UC ||
                         admit.transport == IBV_QPT_XRC_SEND ||
                         admit.transport == IBV_QPT_XRC_RECV;
  return transport && admit.qpn <= kQpnMask && admit.dest_qpn <= kQpnMask;
}

bool is_valid(const AdmissionReply& reply) {
  return reply.has_neighbour <= 1 && (reply.allowed_access & ~kRemoteAccess) == 0 &&
         (reply.has_neighbour == 0 || is_function(reply.function));
}

bool is_valid(const Release& release) { return release.qpn <= kQpnMask; }

bool is_valid(const Event& event) {
  const auto kind = static_cast<std::uint32_t>(event.kind);
  return kind >= static_cast<std::uint32_t>(EventKind::kRevoke) &&
         kind <= static_cast<std::uint32_t>(EventKind::kClosing) && event.qpn <= kQpnMask &&
         (event.access & ~kRemoteAccess) == 0 &&
         event.channel <= static_cast<std::uint32_t>(rdma::ChannelKind::kMemory);
}

bool is_valid(const GidsChanged& changed) { return is_valid(changed.gids); }
bool is_valid(const Acknowledge&) { return true; }

Result<AttachHeader> decode_header(std::span<const std::byte> message) {
  AttachHeader header;
  if (message.size() < sizeof header) {
    return fail(ErrorCode::kInvalid, "attach: a message of %zu bytes, its header has %zu",
                message.size(), sizeof header);
  }
  std::memcpy(&header, message.data(), sizeof header);
  if (header.magic != kAttachMagic) {
    return fail(ErrorCode::kInvalid, "attach: the other side speaks another protocol");
  }
  if (header.version != kAttachVersion) {
    return fail(ErrorCode::kInvalid,
                "attach: the other side speaks version %u, this one %u; use libraries and daemon "
                "of one release",
                header.version, kAttachVersion);
  }
  return header;
}

template <class T>
Result<T> decode(std::span<const std::byte> message, const char* name) {
  const AttachHeader header = ISTHMUS_TRY(decode_header(message));
  T copy;
  if (header.type != copy.header.type || message.size() != sizeof copy) {
    return fail(ErrorCode::kInvalid, "attach: message type %u of %zu bytes where %s was expected",
                static_cast<unsigned>(header.type), message.size(), name);
  }
  std::memcpy(&copy, message.data(), sizeof copy);
  if (!is_valid(copy)) return fail(ErrorCode::kInvalid, "attach: %s with a bad field", name);
  return copy;
}

// The answer T, or the error that the daemon sent instead.
template <class T>
Result<T> decode_answer(std::span<const std::byte> message, const char* name) {
  const AttachHeader header = ISTHMUS_TRY(decode_header(message));
  if (header.type != AttachMessageType::kFailure) return decode<T>(message, name);
  const Failure failure = ISTHMUS_TRY(decode<Failure>(message, "failure"));
  return std::unexpected(Error{static_cast<ErrorCode>(failure.error), failure.text.data()});
}

}  // namespace

Result<Hello> decode_hello(std::span<const std::byte> message) {
  return decode<Hello>(message, "hello");
}

Result<FunctionRequest> decode_function_request(std::span<const std::byte> message) {
  const AttachHeader header = ISTHMUS_TRY(decode_header(message));
  if (header.type == AttachMessageType::kRelease) {
    return ISTHMUS_TRY(decode<Release>(message, "release"));
  }
  return ISTHMUS_TRY(decode<Admit>(message, "admit"));
}

Result<Acknowledge> decode_acknowledge(std::span<const std::byte> message) {
  return decode<Acknowledge>(message, "acknowledge");
}

Result<Welcome> decode_welcome(std::span<const std::byte> message) {
  return decode_answer<Welcome>(message, "welcome");
}

Result<Grant> decode_grant(std::span<const std::byte> message) {
  return decode_answer<Grant>(message, "grant");
}

Result<AdmissionReply> decode_admission(std::span<const std::byte> message) {
  return decode_answer<AdmissionReply>(message, "admission");
}

Result<EventMessage> decode_event(std::span<const std::byte> message) {
  const AttachHeader header = ISTHMUS_TRY(decode_header(message));
  if (header.type == AttachMessageType::kGids) {
    return ISTHMUS_TRY(decode<GidsChanged>(message, "gids"));
  }
  return ISTHMUS_TRY(decode<Event>(message, "event"));
}

Failure failure_of(const Error& error) {
  ISTHMUS_ASSERT(static_cast<int>(error.code) > 0);
  return Failure{.error = static_cast<std::int32_t>(error.code),
                 .text = text_of<sizeof(Failure::text)>(error.message)};
}

}  // namespace isthmus::attach
