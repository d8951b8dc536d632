// PageDrop: gives pages back to the kernel, scattered ones in one system call.
//
// Each call makes every other running thread of the process drop its translations, which costs 15
// µs however many pages there are: 0.5 µs a page for 64 in one call, 16 in 64 calls.
//
// Cost: 1 µs for one page of a single thread, 0.1 µs a page for 64.
//
// Threading: any thread. drop() allocates nothing and keeps errno.
#pragma once

#include <span>

#include "os/address_range.h"
#include "os/fd.h"

namespace isthmus::os {

// Whole, anonymous private pages: reading them again finds zeros, or a userfault.
class PageDrop {
 public:
  // For this process; a child needs its own.
  PageDrop();

  void drop(std::span<const AddressRange> ranges) const;

 private:
  Fd self_;  // Not valid where the kernel cannot do several at once (before 6.13).
};

// As if every page of the range were written, without changing it: shared ones become this
// process's own. False: not possible (before Linux 5.14), or not mapped. Keeps errno.
bool populate_for_writing(AddressRange range);

// Whether the page's translation is there: 0.2 µs. False for one that was never touched.
bool is_page_present(std::uint64_t address);

}  // namespace isthmus::os
