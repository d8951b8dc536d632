#include "rdma/key_table.h"

#include <algorithm>
#include <cstring>
#include <numeric>

#include "base/assert.h"
#include "os/process_memory.h"

namespace isthmus::rdma {
namespace {

bool contains(const KeyValues& values, std::uint64_t address, std::uint64_t length) {
  // No sum of two numbers from outside: it could wrap.
  if (address < values.iova) return false;
  const std::uint64_t offset = address - values.iova;
  return offset <= values.length && length <= values.length - offset;
}

// Partners, in check_key: kAcquire of a value that was stored with kRelease makes sure that the
// second load of `changes` sees what was counted before that store.
constexpr auto kAcquire = std::memory_order_acquire;
constexpr auto kRelease = std::memory_order_release;

// From here to the store of its key nobody uses the slot.
void begin_change(KeySlot& slot) {
  slot.key.store(0, kRelease);
  slot.changes.store(slot.changes.load(std::memory_order_relaxed) + 1, kRelease);
}

void store_values(KeySlot& slot, const KeyValues& values) {
  slot.access.store(values.access, kRelease);
  slot.iova.store(values.iova, kRelease);
  slot.length.store(values.length, kRelease);
  slot.host_address.store(values.host_address, kRelease);
  slot.pd.store(values.pd, kRelease);
  slot.flags.store(values.flags, kRelease);
  slot.shared_file.store(values.shared_file, kRelease);
  slot.shared_offset.store(values.shared_offset, kRelease);
}

void store_binding(KeySlot& slot, std::uint32_t bound_qpn, std::uint32_t region_key) {
  slot.bound_qpn.store(bound_qpn, kRelease);
  slot.region_key.store(region_key, kRelease);
}

}  // namespace

bool check_key(const KeySlot& slot, const KeyRequest& request, KeyValues& values) {
  const std::uint32_t changes = slot.changes.load(kAcquire);
  if (request.key == 0 || slot.key.load(kAcquire) != request.key) return false;
  values = KeyValues{.pd = slot.pd.load(kAcquire),
                     .access = slot.access.load(kAcquire),
                     .iova = slot.iova.load(kAcquire),
                     .length = slot.length.load(kAcquire),
                     .host_address = slot.host_address.load(kAcquire),
                     .flags = slot.flags.load(kAcquire),
                     .shared_file = slot.shared_file.load(kAcquire),
                     .shared_offset = slot.shared_offset.load(kAcquire),
                     .changes = changes};
  const std::uint32_t bound_qpn = slot.bound_qpn.load(kAcquire);
  const std::uint32_t region_key = slot.region_key.load(kAcquire);
  if (slot.changes.load(std::memory_order_relaxed) != changes) return false;

  if ((values.flags & kKeyIsWindow) && region_key == 0) return false;
  if (bound_qpn != 0 ? bound_qpn != request.qpn : values.pd != request.pd) return false;
  if ((values.access & request.access) != request.access) return false;
  if (values.flags & kKeyIsNull) return true;
  if (!contains(values, request.address, request.length)) return false;
  values.host_address += request.address - values.iova;
  values.shared_offset += request.address - values.iova;
  return true;
}

KeyTable::KeyTable(std::span<KeySlot, kMaxKeys> slots, std::function<std::uint64_t()> random)
    : slots_(slots), random_(std::move(random)) {
  // Index 0 stays unused, so that no key is 0.
  free_.resize(kMaxKeys - 1);
  std::iota(free_.begin(), free_.end(), std::uint16_t{1});
}

Result<std::uint32_t> KeyTable::add(const KeyValues& values) {
  if (free_.empty()) {
    return fail(ErrorCode::kNoMemory, "all %u memory keys are in use", kMaxKeys - 1);
  }
  const std::uint64_t draw = random_();
  std::swap(free_[(draw >> 16) % free_.size()], free_.back());
  const std::uint32_t index = free_.back();
  free_.pop_back();
  KeySlot& slot = slots_[index];
  ISTHMUS_ASSERT(slot.key == 0);
  store_values(slot, values);
  store_binding(slot, 0, 0);
  const std::uint32_t key = index << 16 | static_cast<std::uint32_t>(draw & 0xffff);
  slot.key.store(key, kRelease);
  return key;
}

void KeyTable::remove(std::uint32_t key) {
  KeySlot& slot = slots_[key >> 16];
  ISTHMUS_ASSERT(slot.key == key && key != 0);
  begin_change(slot);
  free_.push_back(static_cast<std::uint16_t>(key >> 16));
}

void KeyTable::replace(std::uint32_t key, const KeyValues& values) {
  KeySlot& slot = slots_[key >> 16];
  begin_change(slot);
  store_values(slot, values);
  slot.key.store(key, kRelease);
}

void KeyTable::bind(std::uint32_t old_key, std::uint32_t new_key, const KeySlot& region,
                    const KeyValues& values, std::uint32_t bound_qpn, std::uint32_t region_key) {
  ISTHMUS_ASSERT(old_key >> 16 == new_key >> 16);
  KeySlot& slot = slots_[old_key >> 16];
  begin_change(slot);
  KeyValues bound = values;
  bound.host_address = region.host_address + (values.iova - region.iova);
  if (values.access & IBV_ACCESS_ZERO_BASED) bound.iova = 0;
  store_values(slot, bound);
  store_binding(slot, bound_qpn, region_key);
  slot.key.store(new_key, kRelease);
}

void KeyTable::unbind(std::uint32_t key) {
  KeySlot& slot = slots_[key >> 16];
  begin_change(slot);
  store_binding(slot, 0, 0);
  slot.access.store(0, kRelease);
  slot.iova = slot.length = 0;
  slot.key.store(key, kRelease);
}

const KeySlot* KeyTable::find(std::uint32_t key) const {
  const KeySlot& slot = slots_[key >> 16];
  return key != 0 && slot.key == key ? &slot : nullptr;
}

int resolve(const KeyTable& keys, std::uint32_t pd, std::span<const ibv_sge> sges,
            std::uint64_t offset, std::uint64_t length, bool write, std::byte* scratch,
            std::span<iovec> out) {
  int count = 0;
  for (const ibv_sge& sge : sges) {
    if (length == 0) break;
    if (offset >= sge.length) {
      offset -= sge.length;
      continue;
    }
    const std::uint64_t piece = std::min<std::uint64_t>(sge.length - offset, length);
    KeyValues values;
    const KeyRequest request{.key = sge.lkey,
                             .pd = pd,
                             .address = sge.addr + offset,
                             .length = piece,
                             .access = write ? std::uint32_t{IBV_ACCESS_LOCAL_WRITE} : 0};
    if (!keys.check(request, values)) return -1;
    std::uint64_t host = values.host_address;
    if (values.flags & kKeyIsWindow) return -1;  // A window has no local key.
    if (values.flags & kKeyIsNull) {
      if (piece > kNullScratchBytes || scratch == nullptr) return -1;
      if (!write) std::memset(scratch, 0, piece);
      host = reinterpret_cast<std::uint64_t>(scratch);  // SAFETY: kNullScratchBytes long.
    }
    ISTHMUS_ASSERT(static_cast<std::size_t>(count) < out.size());
    // SAFETY: inside a memory region that the program registered and still owns.
    out[static_cast<std::size_t>(count++)] = {reinterpret_cast<void*>(host), piece};
    length -= piece;
    offset = 0;
  }
  return count;
}

namespace {

// Visits the memory of [offset, offset + length): `copy(values, done, bytes)`.
template <class Copy>
bool for_each_piece(const KeyTable& keys, std::uint32_t pd, std::span<const ibv_sge> sges,
                    std::uint64_t offset, std::uint64_t length, std::uint32_t access, Copy copy) {
  std::uint64_t done = 0;
  for (const ibv_sge& sge : sges) {
    if (done == length) break;
    if (offset >= sge.length) {
      offset -= sge.length;
      continue;
    }
    const std::uint64_t piece = std::min<std::uint64_t>(sge.length - offset, length - done);
    KeyValues values;
    const KeyRequest request{.key = sge.lkey,
                             .pd = pd,
                             .address = sge.addr + offset,
                             .length = piece,
                             .access = access};
    if (!keys.check(request, values) || (values.flags & kKeyIsWindow)) return false;
    if (!copy(values, done, piece)) return false;
    done += piece;
    offset = 0;
  }
  return done == length;
}

}  // namespace

bool write_key_memory(const KeyValues& values, std::span<const std::byte> bytes) {
  if (bytes.empty() || (values.flags & kKeyIsNull)) return true;
  // SAFETY: inside a memory region that the program registered and still owns.
  auto* host = reinterpret_cast<std::byte*>(values.host_address);
  if (values.flags & kKeyIsOnDemand) {
    return os::copy_memory_checked(host, bytes.data(), bytes.size());
  }
  std::memcpy(host, bytes.data(), bytes.size());
  return true;
}

bool read_key_memory(const KeyValues& values, std::uint64_t offset, std::span<std::byte> out) {
  if (out.empty()) return true;
  // SAFETY: inside a memory region that the program registered and still owns.
  const auto* host = reinterpret_cast<const std::byte*>(values.host_address + offset);
  if (values.flags & kKeyIsNull) {
    std::memset(out.data(), 0, out.size());
  } else if (values.flags & kKeyIsOnDemand) {
    return os::copy_memory_checked(out.data(), host, out.size());
  } else {
    std::memcpy(out.data(), host, out.size());
  }
  return true;
}

int refer(const KeyTable& keys, std::uint32_t pd, std::span<const ibv_sge> sges,
          std::uint64_t offset, std::uint64_t length, std::span<iovec> out) {
  std::size_t count = 0;
  const bool possible = for_each_piece(
      keys, pd, sges, offset, length, 0,
      [&](const KeyValues& values, std::uint64_t, std::uint64_t bytes) {
        if (values.flags != 0 || count == out.size()) return false;
        // SAFETY: inside a memory region that the program registered and still owns.
        out[count++] = {reinterpret_cast<void*>(values.host_address), bytes};
        return true;
      });
  return possible ? static_cast<int>(count) : -1;
}

bool gather(const KeyTable& keys, std::uint32_t pd, std::span<const ibv_sge> sges,
            std::uint64_t offset, std::span<std::byte> out) {
  return for_each_piece(keys, pd, sges, offset, out.size(), 0,
                        [&](const KeyValues& values, std::uint64_t done, std::uint64_t bytes) {
                          return read_key_memory(values, 0, out.subspan(done, bytes));
                        });
}

bool scatter(const KeyTable& keys, std::uint32_t pd, std::span<const ibv_sge> sges,
             std::uint64_t offset, std::span<const std::byte> in) {
  return for_each_piece(keys, pd, sges, offset, in.size(), IBV_ACCESS_LOCAL_WRITE,
                        [&](const KeyValues& values, std::uint64_t done, std::uint64_t bytes) {
                          return write_key_memory(values, in.subspan(done, bytes));
                        });
}

std::uint64_t apply_atomic(std::uint64_t host_address, bool is_swap, std::uint64_t compare_add,
                           std::uint64_t swap) {
  // SAFETY: eight aligned bytes inside a region registered for remote atomics.
  auto* word = reinterpret_cast<std::uint64_t*>(host_address);
  if (!is_swap) return __atomic_fetch_add(word, compare_add, __ATOMIC_SEQ_CST);
  std::uint64_t original = compare_add;
  __atomic_compare_exchange_n(word, &original, swap, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
  return original;
}

void store_atomic(std::uint64_t host_address, std::uint64_t value) {
  // SAFETY: eight aligned bytes inside a region registered for remote writes.
  __atomic_store_n(reinterpret_cast<std::uint64_t*>(host_address), value, __ATOMIC_SEQ_CST);
}

}  // namespace isthmus::rdma
