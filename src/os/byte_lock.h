// Locks on single bytes of a file, by which the processes of a family see which of them are gone.
//
// A lock belongs to an open file: it lasts until the last descriptor of it is closed, by whatever
// ends a process, or by exec. A child of fork() holds its parent's until it closes its copy.
//
// Threading: any thread.
#pragma once

#include <cstdint>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

// An empty file without a name in the file system.
Result<Fd> create_lock_bytes(const char* name);

// The same file, opened anew: its locks are its own. kNotFound: there is no /proc.
Result<Fd> open_again(const Fd& file);

// False: another open file has it.
bool try_lock_byte(const Fd& file, std::uint64_t byte);
void unlock_byte(const Fd& file, std::uint64_t byte);

}  // namespace isthmus::os
