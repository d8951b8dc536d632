#include "preload/interpose/far_callers.h"

#include <link.h>

#include <array>
#include <cstring>

namespace isthmus::preload {
namespace {

struct Code {
  std::uint64_t start = 0;
  std::uint64_t bytes = 0;

  bool has(const void* address) const {
    return reinterpret_cast<std::uint64_t>(address) - start < bytes;
  }
};

// ld.so, libibverbs, librdmacm, this object and libisthmus_preload, with room for as many again.
constexpr std::size_t kMostLocal = 10;

struct Found {
  Code libc;
  Code allocator;
  std::array<Code, kMostLocal> local;
  std::size_t local_count = 0;
  bool looked = false;  // Libraries that come later are the program's.
};

constinit Found found;

Code code_of(const dl_phdr_info& info) {
  for (int index = 0; index < info.dlpi_phnum; ++index) {
    const ElfW(Phdr)& header = info.dlpi_phdr[index];
    if (header.p_type == PT_LOAD && (header.p_flags & PF_X) != 0) {
      return {info.dlpi_addr + header.p_vaddr, header.p_memsz};
    }
  }
  return {};
}

bool is_named(const char* name, const char* beginning) {
  return std::strncmp(name, beginning, std::strlen(beginning)) == 0;
}

int look_at(dl_phdr_info* info, size_t, void*) {
  const char* slash = std::strrchr(info->dlpi_name, '/');
  const char* name = slash != nullptr ? slash + 1 : info->dlpi_name;
  if (is_named(name, "libc.so")) found.libc = code_of(*info);
  if (is_named(name, "libjemalloc.so")) found.allocator = code_of(*info);
  for (const char* local : {"ld-linux", "libibverbs.so", "librdmacm.so", "libisthmus_"}) {
    if (is_named(name, local) && found.local_count < kMostLocal) {
      found.local[found.local_count++] = code_of(*info);
    }
  }
  return 0;
}

}  // namespace

bool is_local_caller(const void* caller, std::size_t bytes) {
  if (found.libc.has(caller)) return bytes < kLeastFarBytes;
  for (std::size_t index = 0; index < found.local_count; ++index) {
    if (found.local[index].has(caller)) return true;
  }
  return false;
}

bool is_allocator(const void* caller) {
  if (!found.looked) {
    found.looked = true;
    dl_iterate_phdr(look_at, nullptr);
  }
  return found.allocator.has(caller);
}

}  // namespace isthmus::preload
