// KeyTable: every memory key of a function, in its window, and the checks that use them.
//
// A key is an index and a tag, both drawn at random, so that a guess is one in 2^32 over an empty
// table and one in 2^16 for a known index; a key is not a secret that protects by itself: the
// protection domain and the connection have to fit too.
//
// Input: keys, addresses and lengths come from the program and from the wire; none is trusted.
// Spec: InfiniBand Architecture vol. 1, 10.6 (memory management).
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include <infiniband/verbs.h>

#include "base/result.h"
#include "rdma/window.h"

namespace isthmus::rdma {

enum KeyFlag : std::uint32_t {
  kKeyIsWindow = 1,         // A memory window; its region_key is 0 while it is not bound.
  kKeyIsNull = 2,           // Reads as zeros, swallows writes.
  kKeyIsOnDemand = 4,       // Pages may be missing: copied by the kernel, which can say no.
  kKeyIsWindowType2 = 8,
};

// What a key stands for, apart from the key.
struct KeyValues {
  std::uint32_t pd = 0;
  std::uint32_t access = 0;
  std::uint64_t iova = 0;
  std::uint64_t length = 0;
  std::uint64_t host_address = 0;
  std::uint32_t flags = 0;
  std::uint32_t shared_file = 0;
  std::uint64_t shared_offset = 0;
  std::uint32_t changes = 0;  // Of check_key() alone: how often the slot was another key's.
};

// Who asks, and for what.
struct KeyRequest {
  std::uint32_t key = 0;
  std::uint32_t pd = 0;
  std::uint32_t qpn = 0;  // For type 2 windows.
  std::uint64_t address = 0;
  std::uint64_t length = 0;
  std::uint32_t access = 0;  // All of these rights; 0: local read.
};

// Checks a slot of any window, also a neighbour's, whose owner may change it meanwhile. On success
// the address in the owner's space, that in the memory file and the flags are in `values`.
bool check_key(const KeySlot& slot, const KeyRequest& request, KeyValues& values);

class KeyTable {
 public:
  KeyTable(std::span<KeySlot, kMaxKeys> slots, std::function<std::uint64_t()> random);

  // The new key: never 0. kNoMemory when all are taken.
  Result<std::uint32_t> add(const KeyValues& values);
  void remove(std::uint32_t key);
  // Changes what a key stands for; nobody sees a mixture of old and new.
  void replace(std::uint32_t key, const KeyValues& values);
  // A memory window's binding. The key keeps its index and gets a new tag.
  void bind(std::uint32_t old_key, std::uint32_t new_key, const KeySlot& region,
            const KeyValues& values, std::uint32_t bound_qpn, std::uint32_t region_key);
  void unbind(std::uint32_t key);

  // Null if there is no such key now.
  const KeySlot* find(std::uint32_t key) const;
  bool check(const KeyRequest& request, KeyValues& values) const {
    return check_key(slots_[request.key >> 16], request, values);
  }
  // The current key at the index of `key`: a type 2 window's tag changes.
  std::uint32_t current(std::uint32_t key) const { return slots_[key >> 16].key; }

 private:
  std::span<KeySlot, kMaxKeys> slots_;
  std::function<std::uint64_t()> random_;
  std::vector<std::uint16_t> free_;
};

// The part [offset, offset + length) of a message, as the memory its scatter/gather list names.
// Returns the number of pieces put in `out`, -1 when a key does not fit. `write`: the list is
// written to. Segments past the list's end are left out: compare the sum.
// `scratch`: where null keys point; at least kNullScratchBytes.
constexpr std::uint64_t kNullScratchBytes = 1 << 20;
int resolve(const KeyTable& keys, std::uint32_t pd, std::span<const ibv_sge> sges,
            std::uint64_t offset, std::uint64_t length, bool write, std::byte* scratch,
            std::span<iovec> out);

// The same for a part that is only read, and only if it can be read where it is, by whoever and
// without fault: -1 also for null keys and pages on demand.
int refer(const KeyTable& keys, std::uint32_t pd, std::span<const ibv_sge> sges,
          std::uint64_t offset, std::uint64_t length, std::span<iovec> out);

// Copies between a message's memory and a flat buffer. False: a key does not fit, or the list is
// too short for it.
bool gather(const KeyTable& keys, std::uint32_t pd, std::span<const ibv_sge> sges,
            std::uint64_t offset, std::span<std::byte> out);
bool scatter(const KeyTable& keys, std::uint32_t pd, std::span<const ibv_sge> sges,
             std::uint64_t offset, std::span<const std::byte> in);

// Copies to and from what a checked key stands for. False: an on-demand page is not there.
bool write_key_memory(const KeyValues& values, std::span<const std::byte> bytes);
bool read_key_memory(const KeyValues& values, std::uint64_t offset, std::span<std::byte> out);

// Compare-swap (compare_add is compared, swap stored) or fetch-add, on eight aligned bytes that a
// checked key named. The original value. The program's own processor atomics see it as one of them.
std::uint64_t apply_atomic(std::uint64_t host_address, bool is_swap, std::uint64_t compare_add,
                           std::uint64_t swap);

// All eight bytes at once, under the same conditions.
void store_atomic(std::uint64_t host_address, std::uint64_t value);

}  // namespace isthmus::rdma
