// The window of a virtual function: what a process shows to its neighbours and to the daemon.
//
// One memory file for each attached process. The owner keeps its keys and the public part of its
// queue pairs in it, so there is one truth: a neighbour on the same host checks a key here before
// it reads or writes the owner's memory itself, and `isthmus status` reads the counters here
// without asking anybody. Neighbours also put messages for the owner's queue pairs into its rings.
//
// Primer: a neighbour gets the window only when the daemon has admitted a connection to it, and
// uses it only when the kernel lets it reach the owner's memory (process_vm_readv). Whoever may do
// that may do anything to the owner, so the window adds no right. It is still read as if it came
// from outside: each field once, each index checked, because a crash can leave anything in it.
//
// Threading: written by the owner's engine, by at most one neighbour per ring, and by the daemon
// (closed, capture). Each atomic below names its partner.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "rdma/limits.h"

namespace isthmus::rdma {

constexpr std::uint64_t kWindowMagic = 0x31'30'48'54'53'49ull;  // "ISTH01"

// Monotonic, written by the owner alone, read by anybody.
struct TrafficCounters {
  std::atomic<std::uint64_t> messages_sent;
  std::atomic<std::uint64_t> messages_received;
  std::atomic<std::uint64_t> bytes_sent;
  std::atomic<std::uint64_t> bytes_received;
  std::atomic<std::uint64_t> packets_sent;
  std::atomic<std::uint64_t> packets_received;
  std::atomic<std::uint64_t> retries;
  std::atomic<std::uint64_t> drops;  // Malformed, wrong ICRC, unknown QP, wrong sender.
};

struct WindowHeader {
  std::uint64_t magic;
  std::uint32_t function;    // Of limits.h.
  std::int32_t process_id;   // The owner's, in the daemon's namespace.
  std::uint64_t generation;  // Of the attachment: two owners of one function number differ here.

  // Set once, by the daemon, when the owner is gone. Partner: every neighbour's progress.
  std::atomic<std::uint32_t> closed;
  // Raised by the owner before it sleeps; whoever then leaves work rings the doorbell. Partner:
  // activity. Both sides store, fence, then load the other's word.
  std::atomic<std::uint32_t> sleeping;

  // One bit a queue pair index, and one bit a word that has any: what the owner has to look at.
  alignas(64) std::atomic<std::uint64_t> activity_summary;
  alignas(64) std::array<std::atomic<std::uint64_t>, kMaxQueuePairs / 64> activity;
  static_assert(kMaxQueuePairs / 64 <= 64, "the summary is one word");

  alignas(64) TrafficCounters counters;
  std::atomic<std::uint32_t> memory_region_count;
  std::atomic<std::uint32_t> queue_pair_count;
  std::atomic<std::uint32_t> completion_queue_count;
  std::atomic<std::uint64_t> registered_bytes;
  std::atomic<std::uint32_t> memory_window_count;
};

// A memory key. The owner makes a slot valid by storing `key` last. Before it changes anything, it
// clears `key` and then counts `changes`; a reader loads `changes` before `key`, and again after it
// has read the rest: if they are equal, all that it read belongs together. The key alone would not
// tell: it may have been cleared and stored again meanwhile. Partner: check_key of a neighbour.
struct KeySlot {
  std::atomic<std::uint32_t> key;           // 0: free.
  std::atomic<std::uint32_t> access;        // ibv_access_flags.
  std::atomic<std::uint64_t> iova;
  std::atomic<std::uint64_t> length;        // Bytes.
  std::atomic<std::uint64_t> host_address;  // In the owner's address space.
  std::atomic<std::uint32_t> pd;
  std::atomic<std::uint32_t> bound_qpn;     // A type 2 window works through this QP alone; else 0.
  std::atomic<std::uint32_t> region_key;    // A window's memory region; 0 for a region.
  std::atomic<std::uint32_t> flags;         // KeyFlag.
  std::atomic<std::uint32_t> changes;
  // A region of a memory file: the owner's descriptor of it and 1, and where the region begins.
  std::atomic<std::uint32_t> shared_file;  // 0: no such region.
  std::atomic<std::uint64_t> shared_offset;
};
static_assert(sizeof(KeySlot) == 64);

enum class ChannelKind : std::uint32_t { kRoce = 0, kMemory = 1 };

// The public part of a queue pair.
struct QpSlot {
  std::atomic<std::uint32_t> qpn;    // 0: free. Partner: neighbours and the daemon.
  std::atomic<std::uint32_t> state;  // ibv_qp_state.
  std::uint32_t type;                // ibv_qp_type.
  std::uint32_t pd;
  std::uint32_t access;              // What the peer may do: access flags cut by policy.
  std::uint32_t dest_qpn;
  std::array<std::byte, 16> local_gid;
  std::array<std::byte, 16> remote_gid;
  std::atomic<std::uint32_t> channel;  // ChannelKind the requester uses now.
  std::atomic<std::uint32_t> serves_memory;  // 1: takes messages from its ring.
  TrafficCounters counters;
};
static_assert(sizeof(QpSlot) == 128);

// One message to a queue pair of the window's owner.
//
// Life: the sender fills an entry and stores kPosted; the owner takes it, in order, executes it and
// stores kDone with a status; the sender retires it, in order, and the entry is free again. A
// sender that gives up cancels what is not yet taken, and the owner passes over it.
enum class RingState : std::uint32_t {
  kFree = 0,
  kPosted = 1,
  kTaken = 2,
  kDone = 3,
  kCancelled = 4,
};

constexpr std::uint32_t kRingEntries = 64;
constexpr std::uint32_t kRingInlineBytes = 256;
constexpr std::uint32_t kRingSegments = 16;  // 16 * 16 bytes: the same space as the inline bytes.
static_assert(kRingSegments == kMaxSge);

struct RingSegment {
  std::uint64_t address;  // In the sender's address space.
  std::uint64_t bytes;
};

enum RingFlag : std::uint32_t {
  kRingInline = 1,     // The payload is in the entry.
  kRingPlaced = 2,     // The payload of a WRITE with immediate is already in place.
  kRingSolicited = 4,
};

struct RingRequest {
  std::uint32_t opcode;      // ibv_wr_opcode.
  std::uint32_t flags;       // RingFlag.
  std::uint32_t source_qpn;
  std::uint32_t dest_qpn;
  std::uint32_t immediate;   // Or the key to invalidate.
  std::uint32_t length;      // Bytes of the message.
  std::uint64_t remote_address;
  std::uint32_t rkey;
  std::uint32_t segment_count;
  std::uint64_t compare_add;  // In kDone: the original value of an atomic.
  std::uint64_t swap;
};

// In `status` while an entry is kPosted: no receive is posted; the low bits are the RNR timer code.
constexpr std::uint32_t kRingNotReady = 0x100;

struct RingEntry {
  std::atomic<std::uint32_t> state;   // RingState. Partner: the other end of the ring.
  std::atomic<std::uint32_t> status;  // ibv_wc_status in kDone, kRingNotReady in kPosted.
  RingRequest request;
  union {
    std::array<std::byte, kRingInlineBytes> bytes;  // Flag kRingInline.
    std::array<RingSegment, kRingSegments> segments;
  };
};
static_assert(sizeof(RingEntry) == 320);

using Ring = std::array<RingEntry, kRingEntries>;

// About 85 MiB of addresses, of which only what is used takes memory: 64 Ki keys of 64 B, 4 Ki
// queue pairs of 128 B, 4 Ki rings of 20 KiB.
struct Window {
  WindowHeader header;
  alignas(4096) std::array<KeySlot, kMaxKeys> keys;
  alignas(4096) std::array<QpSlot, kMaxQueuePairs> queue_pairs;
  alignas(4096) std::array<Ring, kMaxQueuePairs> rings;
};
static_assert(std::is_standard_layout_v<Window>);

}  // namespace isthmus::rdma
