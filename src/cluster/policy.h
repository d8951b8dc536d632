// PolicyDocument: who may connect to whom, and which remote operations the connection may use.
//
// Primer: setting up an RDMA connection takes a request and a reply, each a message through the
// daemon; the data that follows passes no software that could say no. So the set-up is the place
// of the policy. It names the two sides: `from` asks, `to` is asked. Rules stand in an order, the
// first that matches decides, and the default decides where none does.
//
// A rule grants rights both ways: forward, what `from` may do to the memory of `to`, and backward.
// The owner of memory still says, by registering it and handing out a key, what may be touched.
//
// An unknown label, GID or port (a foreign peer has no label here; a QP connected without CM has
// no port) matches no pattern, so only a rule that does not ask for it can match. That holds for
// deny rules too: lint() warns of one that can be evaded so.
//
// Invariants: rights are none where the decision is deny; SEND is in every other grant.
// Threading: a value. Any number of threads may evaluate one document that nobody changes.
// Input: queries may hold whatever a peer sent; evaluate() does not allocate and takes a time
// bounded by the document (kMaxRules) and the lengths of the labels.
// Spec: docs/policy.md.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace isthmus::cluster {

// Network byte order; an IPv4 address as ::ffff:a.b.c.d, as in a RoCE GID table.
using Gid = std::array<std::byte, 16>;

inline constexpr std::size_t kGidBits = 8 * sizeof(Gid);

// The bounds of a document. evaluate() visits each pattern at most twice, so these keep one
// connection request below 2 * 1024 * 3 * 64 comparisons, whoever wrote the document.
inline constexpr std::size_t kMaxRules = 1024;
inline constexpr std::size_t kMaxPatternsPerList = 64;  // Labels, prefixes or ports of one side.
inline constexpr std::size_t kMaxNameBytes = 64;        // Of a rule or of a label pattern.

// The verdict's `rule` where no rule of the document decided. No rule can have these names.
inline constexpr std::string_view kDefaultName = "default";
inline constexpr std::string_view kRequireMarkName = "require_mark";

// Operations one side performs on the other.
enum class Right : std::uint8_t {
  kSend = 1,  // Comes with the connection: it reaches only buffers the receiver posted.
  kRead = 2,
  kWrite = 4,
  kAtomic = 8,
};

class Rights {
 public:
  constexpr Rights() = default;

  static constexpr Rights all() { return Rights{0xf}; }
  static constexpr Rights send_only() { return Rights{}.with(Right::kSend); }

  constexpr bool has(Right right) const { return (bits_ & static_cast<unsigned>(right)) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr Rights with(Right right) const { return Rights{bits_ | static_cast<unsigned>(right)}; }
  constexpr Rights without(Rights other) const { return Rights{bits_ & ~other.bits_}; }
  constexpr Rights both(Rights other) const { return Rights{bits_ & other.bits_}; }
  constexpr std::uint8_t bits() const { return static_cast<std::uint8_t>(bits_); }
  friend constexpr bool operator==(Rights, Rights) = default;

 private:
  constexpr explicit Rights(unsigned bits) : bits_(bits) {}
  unsigned bits_ = 0;
};

// "send read write atomic", or "nothing": for logs and reports.
std::string to_string(Rights rights);

enum class Transport : std::uint8_t { kRc, kUc, kUd, kXrc };
inline constexpr std::size_t kTransportCount = 4;

std::string_view to_string(Transport transport);

class TransportSet {
 public:
  constexpr TransportSet() = default;

  static constexpr TransportSet all() { return TransportSet{(1u << kTransportCount) - 1}; }

  constexpr bool has(Transport t) const { return (bits_ >> static_cast<unsigned>(t) & 1) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr bool covers(TransportSet other) const { return (other.bits_ & ~bits_) == 0; }
  constexpr TransportSet with(Transport t) const {
    return TransportSet{bits_ | 1u << static_cast<unsigned>(t)};
  }
  friend constexpr bool operator==(TransportSet, TransportSet) = default;

 private:
  constexpr explicit TransportSet(unsigned bits) : bits_(bits) {}
  unsigned bits_ = 0;
};

// The addresses that agree with `address` in their first `bits` bits.
struct GidPrefix {
  Gid address{};          // Zero after the prefix.
  std::uint8_t bits = 0;  // 0..kGidBits; 96 more than written for IPv4.

  bool contains(const Gid& gid) const;
  bool covers(const GidPrefix& other) const;  // Every address of the other is one of these.
  friend bool operator==(const GidPrefix&, const GidPrefix&) = default;
};

// Both ends included; first <= last, and 0 is no port.
struct PortRange {
  std::uint16_t first = 1;
  std::uint16_t last = 1;
  friend bool operator==(const PortRange&, const PortRange&) = default;
};

// `*` stands for any characters, `?` for one; nothing else is special, and case counts.
bool label_matches(std::string_view pattern, std::string_view label);
// Every label that matches `narrow` matches `wide`. May say false of a pair where it is true.
bool label_covers(std::string_view wide, std::string_view narrow);

// In each list one match is enough; an empty list asks for nothing.
struct EndpointPattern {
  std::vector<std::string> labels;
  std::vector<GidPrefix> gids;
};

enum class Decision : std::uint8_t { kAllow, kDeny };

struct PolicyRule {
  std::string name;
  EndpointPattern from;
  EndpointPattern to;
  std::vector<PortRange> ports;  // Of the service that `to` offers.
  TransportSet transports = TransportSet::all();
  Decision decision = Decision::kDeny;
  Rights forward;          // What `from` may do to `to`.
  Rights backward;         // What `to` may do to `from`.
  std::uint32_t line = 0;  // Of the document it was read from, from 1; 0: of none.
};

// One side of a connection as this host knows it. Borrowed for the call.
struct Endpoint {
  std::optional<std::string_view> label;
  std::optional<Gid> gid;
};

// What is being judged, and on which host. `from` asked in the first four.
enum class Direction : std::uint8_t {
  kRequestOut,  // On from's host: its request, before it leaves.
  kRequestIn,   // On to's host: the same request, arriving.
  kReplyOut,    // On to's host: its reply, before it leaves.
  kReplyIn,     // On from's host: the same reply, arriving.
  kWithoutCm,   // On from's host: its QP goes to RTR with QP numbers exchanged in another way.
                // Nobody asked, so a rule matches with the two sides either way round.
};

// Whether the daemon of the sender's host is known to have passed the message. A peer on this
// host counts as marked: its daemon is the one asking.
enum class Mark : std::uint8_t { kAbsent, kPresent };

struct ConnectionQuery {
  Endpoint from;
  Endpoint to;
  std::optional<std::uint16_t> port;
  Transport transport = Transport::kRc;
  Direction direction = Direction::kRequestOut;
  Mark mark = Mark::kAbsent;  // Asked only of what arrives, and kWithoutCm of the peer's consent.
};

struct PolicyVerdict {
  Decision decision = Decision::kDeny;
  Rights forward;
  Rights backward;
  std::string_view rule;  // The name that decided. Borrowed from the document.

  bool allowed() const { return decision == Decision::kAllow; }
};

struct PolicyDocument {
  std::vector<PolicyRule> rules;
  std::optional<Decision> default_decision;  // Not written: allow.
  std::vector<GidPrefix> require_mark;

  // The policy of a private daemon: a document that says nothing.
  static PolicyDocument allow_all() { return {}; }

  Decision decision_without_rule() const { return default_decision.value_or(Decision::kAllow); }
  bool requires_mark(const Gid& peer) const;
  [[nodiscard]] PolicyVerdict evaluate(const ConnectionQuery& query) const;
};

// A connection that stands, with the query that was asked when it was set up. Borrowed.
struct LiveConnection {
  std::uint64_t id = 0;  // The caller's own; diff() only hands it back.
  ConnectionQuery query;
};

struct PolicyLoss {
  std::uint64_t id = 0;
  Rights forward_lost;
  Rights backward_lost;
  PolicyVerdict after;  // Denied: tear it down. Allowed: take the lost rights from it.
};

// What each connection loses when `after` takes the place of `before`, in the order given; those
// that lose nothing are left out. The verdicts borrow from `after`.
std::vector<PolicyLoss> diff(const PolicyDocument& before, const PolicyDocument& after,
                             std::span<const LiveConnection> live);

}  // namespace isthmus::cluster
