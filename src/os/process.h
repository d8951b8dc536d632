// Processes: who we are, and noticing the end of another one.
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"
#include "os/fd.h"

namespace isthmus::os {

std::int32_t process_id();
std::uint32_t effective_user_id();

// Lets another thread have the processor for once, if one is waiting for it.
void yield_processor();

// The short name of the running program, as `ps` shows it.
std::string program_name();

// Of this machine, as `hostname` shows it.
std::string host_name();

// Readable when the process has ended. kNotFound: it has already.
Result<Fd> watch_process(std::int32_t process_id);

// Lets this process have as many descriptors as its hard limit allows; returns that number.
std::uint64_t raise_descriptor_limit();

}  // namespace isthmus::os
