#include "os/low_descriptors.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "os/fd.h"

namespace isthmus::os {
namespace {

struct EndListing {
  void operator()(DIR* listing) const { closedir(listing); }
};

int number_of_low_ones() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
  // Half of what the process may have is left for what is to come.
  return static_cast<int>(std::min<rlim_t>(limit.rlim_cur / 2, kLowDescriptors));
}

}  // namespace

LowDescriptors::LowDescriptors() {
  const int bound = number_of_low_ones();
  Fd next{open("/dev/null", O_PATH | O_CLOEXEC)};
  while (next && next.get() < bound) {
    const int number = next.release();
    taken_.set(static_cast<std::size_t>(number));
    next = Fd{fcntl(number, F_DUPFD_CLOEXEC, 0)};
  }
}

LowDescriptors::~LowDescriptors() {
  for (std::size_t number = 0; number < taken_.size(); ++number) {
    if (taken_.test(number)) close(static_cast<int>(number));
  }
}

int moved_high(int descriptor) {
  if (descriptor < 0 || descriptor >= kLowDescriptors) return descriptor;
  const int high = duplicate_high(descriptor);
  if (high < 0) return descriptor;
  close(descriptor);
  return high;
}

int duplicate_high(int descriptor) {
  return fcntl(descriptor, F_DUPFD_CLOEXEC, number_of_low_ones());
}

std::vector<int> open_descriptors() {
  std::vector<int> found;
  const std::unique_ptr<DIR, EndListing> listing{opendir("/proc/self/fd")};
  if (!listing) return found;
  while (const dirent* entry = readdir(listing.get())) {
    char* end = nullptr;
    const long number = std::strtol(entry->d_name, &end, 10);
    if (*end == '\0' && number != dirfd(listing.get())) found.push_back(static_cast<int>(number));
  }
  std::ranges::sort(found);
  return found;
}

}  // namespace isthmus::os
