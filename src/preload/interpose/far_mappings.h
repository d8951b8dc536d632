// Mappings: what the program maps for its data lies in the far region; the rest is the kernel's.
//
// All ranges are whole pages of the region. Errors are errno values; 0 is success.
//
// Threading: any thread. Not from a RuntimeScope's work that holds far_runtime.lock.
#pragma once

#include <cstdint>
#include <optional>

#include "os/address_range.h"

namespace isthmus::preload {

// Zeros, readable and writable.
std::optional<os::AddressRange> take_far(std::uint64_t bytes);
bool take_far_at(os::AddressRange range);
void release_far(os::AddressRange range);

// The contents are gone; the protection stays. EINVAL: some of it is locked.
int discard_far(os::AddressRange range);
int protect_far(os::AddressRange range, int protection);
int lock_far(os::AddressRange range);
void unlock_far(os::AddressRange range);
void prefetch_far(os::AddressRange range);

}  // namespace isthmus::preload
