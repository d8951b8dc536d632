// Lock files: at most one daemon for one path.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

enum class LockWait { kNo, kYes };

// Locks a file, made if need be, as long as the descriptor or a copy of it is open. kBusy: somebody
// has it. The kernel lets go of it when its holder ends, however that happens.
Result<Fd> lock_file(const std::string& path, LockWait wait);

// Puts the holder's process id into the locked file, and finds it there; 0: nothing useful.
void write_lock_owner(const Fd& lock, std::int32_t process_id);
std::int32_t read_lock_owner(const std::string& path);

// Removes a file; fine when it is not there.
void remove_file(const std::string& path);

}  // namespace isthmus::os
