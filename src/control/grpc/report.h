// What the daemon reports and its operator reads, as plain values: the words of control.proto for
// all who do not include gRPC, whose headers are slow to compile.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "wire/ip.h"

namespace isthmus::control {

struct TrafficReport {
  std::uint64_t messages_sent = 0;
  std::uint64_t messages_received = 0;
  std::uint64_t bytes_sent = 0;
  std::uint64_t bytes_received = 0;
  std::uint64_t packets_sent = 0;
  std::uint64_t packets_received = 0;
  std::uint64_t retries = 0;
  std::uint64_t drops = 0;
  friend bool operator==(const TrafficReport&, const TrafficReport&) = default;
};

struct QueuePairReport {
  std::uint32_t qpn = 0;
  std::string type;   // RC, UC, UD, XRC
  std::string state;  // RESET, INIT, RTR, RTS, SQD, SQE, ERR
  std::string local_gid;
  std::string remote_gid;
  std::uint32_t dest_qpn = 0;
  std::string channel;       // roce, memory
  std::uint32_t access = 0;  // ibv_access_flags the peer has.
  TrafficReport traffic;
  friend bool operator==(const QueuePairReport&, const QueuePairReport&) = default;
};

struct MemoryRegionReport {
  std::uint32_t key = 0;
  std::uint64_t iova = 0;
  std::uint64_t length = 0;  // Bytes.
  std::uint32_t access = 0;  // ibv_access_flags.
  bool window = false;       // A memory window, not a region.
  friend bool operator==(const MemoryRegionReport&, const MemoryRegionReport&) = default;
};

// One ibv_open_device of one process.
struct FunctionReport {
  std::uint32_t index = 0;
  std::uint64_t generation = 0;
  std::int32_t process_id = 0;
  std::string program;
  std::string label;
  std::uint32_t queue_pair_count = 0;
  std::uint32_t memory_region_count = 0;
  std::uint32_t completion_queue_count = 0;
  std::uint64_t registered_bytes = 0;
  TrafficReport traffic;
  std::vector<QueuePairReport> queue_pairs;        // When asked for.
  std::vector<MemoryRegionReport> memory_regions;  // When asked for.
  friend bool operator==(const FunctionReport&, const FunctionReport&) = default;
};

struct CounterReport {
  std::string name;
  std::uint64_t value = 0;
  friend bool operator==(const CounterReport&, const CounterReport&) = default;
};

struct StatusReport {
  std::string label;
  std::string version;
  std::int32_t process_id = 0;
  bool private_daemon = false;
  std::uint64_t taken_ns = 0;  // Monotonic clock of the host.
  std::uint64_t started_ns = 0;
  std::vector<std::string> addresses;
  std::string socket;
  std::vector<FunctionReport> functions;
  std::vector<CounterReport> counters;
  friend bool operator==(const StatusReport&, const StatusReport&) = default;
};

struct StatusDetail {
  bool queue_pairs = false;
  bool memory_regions = false;
};

struct VersionReport {
  std::string version;
  std::int32_t process_id = 0;
};

// A connection that stands, and what the policy says of it.
struct ConnectionReport {
  std::uint32_t qpn = 0;
  std::int32_t process_id = 0;
  std::string program;
  std::string from;
  std::string to;
  std::uint32_t port = 0;  // 0: none, as without CM.
  std::string transport;
  std::string decision;  // allow, deny
  std::string rights;    // Forward, then backward where they differ.
  std::string rule;
  bool changed = false;  // It lost something by the document just applied.
  friend bool operator==(const ConnectionReport&, const ConnectionReport&) = default;
};

struct PolicyReport {
  std::string document;  // TOML
  std::string name;      // Where it came from.
  std::vector<ConnectionReport> connections;
  friend bool operator==(const PolicyReport&, const PolicyReport&) = default;
};

enum class PolicyAction { kCheckOnly, kApply };

struct PolicyChange {
  std::string document;
  std::string name;
  PolicyAction action = PolicyAction::kCheckOnly;
};

struct ChannelChange {
  std::uint32_t qpn = 0;
  bool all = false;
  std::string kind;  // roce, memory
};

struct PacketReport {
  std::uint64_t timestamp_ns = 0;  // Since 1970.
  bool incoming = false;
  bool memory_channel = false;
  wire::IpAddress source;
  wire::IpAddress destination;
  std::uint16_t source_port = 0;
  std::uint16_t ip_id = 0;
  std::uint32_t original_bytes = 0;
  std::vector<std::byte> payload;  // BTH to ICRC.
  std::int32_t process_id = 0;
  std::uint32_t local_qpn = 0;
  friend bool operator==(const PacketReport&, const PacketReport&) = default;
};

struct PacketBatchReport {
  std::vector<PacketReport> packets;
  std::uint64_t dropped = 0;  // Since the capture began.
};

}  // namespace isthmus::control
