#include "os/netns.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/stat.h>

#include <string>
#include <thread>

namespace isthmus::os {

Result<Fd> open_network_namespace(std::int32_t process_id) {
  const std::string path =
      process_id == 0 ? "/proc/self/ns/net" : "/proc/" + std::to_string(process_id) + "/ns/net";
  Fd fd{open(path.c_str(), O_RDONLY | O_CLOEXEC)};
  if (!fd) return fail_errno(errno, "open the network namespace " + path);
  return fd;
}

Result<std::uint64_t> network_namespace_id(const Fd& network_namespace) {
  struct stat status {};
  if (fstat(network_namespace.get(), &status) != 0) {
    return fail_errno(errno, "look at a network namespace");
  }
  return static_cast<std::uint64_t>(status.st_ino);  // All of them live in one file system.
}

Result<void> run_in_network_namespace(const Fd& network_namespace,
                                      const std::function<Result<void>()>& action) {
  Result<void> result;
  std::thread inside([&] {
    if (setns(network_namespace.get(), CLONE_NEWNET) != 0) {
      result = fail_errno(errno, "enter a network namespace");
      return;
    }
    result = action();
  });
  inside.join();
  return result;
}

}  // namespace isthmus::os
