// The messages between a process and the daemon: how a process gets its virtual function.
//
// Primer: every connection to the attach socket (AF_UNIX, SOCK_SEQPACKET) begins with a Hello that
// says of which kind it is.
//
//     function   Hello -> Grant with descriptors, or Failure. Then requests of this file; Admit is
//                answered, Release is not. One connection is one function: closing it, or the end
//                of the process, gives the function back.
//     cm         Hello -> Welcome, or Failure. Then the messages of cm_protocol.h.
//     hold       Hello -> Welcome. Nothing more: as long as it is open, a private daemon stays.
//
// A function's events come on a second socket that is part of the grant, so that a thread can wait
// for them while another makes a request. The client answers some of them there (Acknowledge).
//
// A client whose daemon was killed greets the next one with kReattach: the function number and
// generation it had, and its window and doorbell. Data did not stop meanwhile.
//
// Byte order is the machine's: these messages never leave it. Text is padded with zeros.
//
// Input: both sides copy what they read and check it with the decoders below, which accept exactly
// one size per message, every enumerator and length in range, and text that ends.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <variant>

#include "base/result.h"
#include "rdma/limits.h"

namespace isthmus::attach {

constexpr std::uint32_t kAttachMagic = 0x54'41'53'49;  // "ISAT"
constexpr std::uint16_t kAttachVersion = 1;
// A receive buffer of this size takes any message of this file.
constexpr std::size_t kAttachMaxMessageBytes = 2048;

enum class AttachMessageType : std::uint16_t {
  kHello = 1,
  kFailure = 2,
  kWelcome = 3,
  kGrant = 4,
  kAdmit = 5,
  kAdmission = 6,
  kRelease = 7,
  kEvent = 8,
  kGids = 9,
  kAcknowledge = 10,
};

struct AttachHeader {
  std::uint32_t magic = kAttachMagic;
  std::uint16_t version = kAttachVersion;
  AttachMessageType type{};
};
static_assert(sizeof(AttachHeader) == 8);

template <std::size_t kBytes>
using Text = std::array<char, kBytes>;

// Cut to what fits with its terminating zero.
template <std::size_t kBytes>
Text<kBytes> text_of(std::string_view from) {
  Text<kBytes> text{};
  from.substr(0, kBytes - 1).copy(text.data(), kBytes - 1);
  return text;
}

// --- Greeting --------------------------------------------------------------------------------

enum class ConnectionKind : std::uint16_t {
  kFunction = 1,
  kReattach = 2,  // A function that another daemon granted. Descriptors: window, doorbell.
  kCm = 3,
  kHold = 4,
};

enum class ChannelWish : std::uint16_t {
  kAuto = 0,  // Memory with neighbours, RoCE with all others.
  kRoce = 1,  // RoCE always.
};

struct Hello {
  AttachHeader header{.type = AttachMessageType::kHello};
  ConnectionKind kind{};
  ChannelWish channel = ChannelWish::kAuto;
  // As the process sees itself; the kernel tells the daemon how it sees it.
  std::int32_t process_id = 0;
  // A neighbour that reads probe_value at probe_address of a process knows that it reached us.
  std::uint64_t probe_address = 0;
  std::uint64_t probe_value = 0;
  std::uint64_t generation = 0;  // kReattach.
  std::uint32_t function = 0;    // kReattach.
  std::uint32_t reserved = 0;
  Text<64> label{};    // Of the instance; empty: the daemon's.
  Text<64> program{};
};

// The answer to any request that failed, and to none that succeeded.
struct Failure {
  AttachHeader header{.type = AttachMessageType::kFailure};
  std::int32_t error = 0;  // errno value, not 0.
  std::uint32_t reserved = 0;
  Text<496> text{};
};

struct Welcome {
  AttachHeader header{.type = AttachMessageType::kWelcome};
  std::uint64_t reserved = 0;
};

struct GidEntry {
  std::array<std::byte, 16> gid{};
  Text<16> interface_name{};
  std::array<std::byte, 6> mac{};
  std::uint16_t reserved = 0;
  std::uint32_t mtu = 0;  // Bytes, of the interface.
};
static_assert(sizeof(GidEntry) == 44);

struct GidTable {
  std::uint32_t count = 0;
  std::array<GidEntry, rdma::kMaxGids> entries{};
};

// Descriptors: window, doorbell, events, then udp_count UDP sockets.
constexpr std::size_t kGrantFixedFds = 3;
constexpr std::uint32_t kMaxUdpSockets = 8;

struct Grant {
  AttachHeader header{.type = AttachMessageType::kGrant};
  std::uint64_t generation = 0;
  std::uint64_t node_guid = 0;  // Host order.
  std::uint32_t function = 0;
  std::uint32_t udp_count = 0;
  std::uint32_t reserved = 0;
  GidTable gids;
};

// --- Requests of a function ------------------------------------------------------------------

// Before a connected QP changes to RTR.
struct Admit {
  AttachHeader header{.type = AttachMessageType::kAdmit};
  std::uint32_t qpn = 0;
  std::uint32_t dest_qpn = 0;
  std::array<std::byte, 16> local_gid{};
  std::array<std::byte, 16> remote_gid{};
  std::uint32_t transport = 0;  // ibv_qp_type: RC, UC, XRC_SEND, XRC_RECV.
  std::uint32_t reserved = 0;
};

// Descriptors when has_neighbour: window, doorbell.
struct AdmissionReply {
  AttachHeader header{.type = AttachMessageType::kAdmission};
  std::uint32_t allowed_access = 0;  // ibv_access_flags the peer may use at most.
  std::uint32_t has_neighbour = 0;   // 0 or 1: the peer is another function of this daemon.
  std::uint32_t function = 0;
  std::int32_t process_id = 0;       // As the daemon sees it.
  std::int32_t own_process_id = 0;   // As it sees itself.
  std::uint32_t reserved = 0;
  std::uint64_t generation = 0;
  std::uint64_t probe_address = 0;
  std::uint64_t probe_value = 0;
};

// The QP is gone or reset; nothing is answered.
struct Release {
  AttachHeader header{.type = AttachMessageType::kRelease};
  std::uint32_t qpn = 0;
  std::uint32_t reserved = 0;
};

// --- Events, on the events socket ------------------------------------------------------------

enum class EventKind : std::uint32_t {
  kRevoke = 1,    // The QP goes to error, at once. Acknowledged.
  kRestrict = 2,  // The peer of the QP may do `access` at most. Acknowledged.
  kChannel = 3,   // The QP changes to `channel`. Acknowledged.
  kCapture = 4,   // Record packets in the ring of the descriptor that comes along.
  kClosing = 5,   // The daemon ends; nobody comes after it.
};

struct Event {
  AttachHeader header{.type = AttachMessageType::kEvent};
  EventKind kind{};
  std::uint32_t qpn = 0;
  std::uint64_t number = 0;    // Comes back in the acknowledgement; 0: none is wanted.
  std::uint32_t access = 0;
  std::uint32_t channel = 0;   // rdma::ChannelKind
};

// The GID table changed.
struct GidsChanged {
  AttachHeader header{.type = AttachMessageType::kGids};
  std::uint32_t reserved = 0;
  GidTable gids;
};

struct Acknowledge {
  AttachHeader header{.type = AttachMessageType::kAcknowledge};
  std::uint64_t number = 0;
};

// --- Decoding --------------------------------------------------------------------------------

using FunctionRequest = std::variant<Admit, Release>;
using EventMessage = std::variant<Event, GidsChanged>;

// What the daemon reads.
Result<Hello> decode_hello(std::span<const std::byte> message);
Result<FunctionRequest> decode_function_request(std::span<const std::byte> message);
Result<Acknowledge> decode_acknowledge(std::span<const std::byte> message);

// What the client reads. A Failure comes back as the Error it carries.
Result<Welcome> decode_welcome(std::span<const std::byte> message);
Result<Grant> decode_grant(std::span<const std::byte> message);
Result<AdmissionReply> decode_admission(std::span<const std::byte> message);
Result<EventMessage> decode_event(std::span<const std::byte> message);

Failure failure_of(const Error& error);

template <class T>
std::span<const std::byte> message_bytes(const T& message) {
  static_assert(std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>,
                "a message has no padding, which would carry what lay on the stack");
  return std::as_bytes(std::span{&message, 1});
}

}  // namespace isthmus::attach
