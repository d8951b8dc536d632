#include "os/process.h"

#include <sched.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

namespace isthmus::os {

std::int32_t process_id() { return getpid(); }

std::uint32_t effective_user_id() { return geteuid(); }

void yield_processor() { sched_yield(); }

std::string program_name() { return program_invocation_short_name; }

std::string host_name() {
  char name[256] = {};
  gethostname(name, sizeof name - 1);
  return name;
}

Result<Fd> watch_process(std::int32_t process_id) {
  Fd fd{static_cast<int>(syscall(SYS_pidfd_open, process_id, 0))};
  if (!fd && errno == ESRCH) {
    return fail(ErrorCode::kNotFound, "process %d has ended", process_id);
  }
  if (!fd) return fail_errno(errno, "watch process " + std::to_string(process_id));
  return fd;
}

std::uint64_t raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  return limit.rlim_cur;
}

}  // namespace isthmus::os
