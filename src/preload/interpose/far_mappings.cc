#include "preload/interpose/far_mappings.h"

#include <sys/mman.h>

#include <cerrno>

#include "preload/interpose/far_runtime.h"
#include "os/memory_calls.h"
#include "os/signal_block.h"

namespace isthmus::preload {
namespace {

using os::AddressRange;

// Signals wait: a handler may map memory too.
class MapLock {
 public:
  MapLock() { far_runtime.lock.lock(); }
  ~MapLock() { far_runtime.lock.unlock(); }

 private:
  os::SignalBlock block_;
};

void* pointer(std::uint64_t address) { return reinterpret_cast<void*>(address); }

// Calls act(run) for the runs of the range whose mark is so; act leaves the mark otherwise.
template <class Act>
void for_runs(PageMarks* marks, AddressRange range, Mark mark, Act&& act) {
  while (range.bytes > 0) {
    std::optional<AddressRange> run;
    {
      const MapLock lock;
      run = marks->first_run(range, mark);
    }
    if (!run) return;
    act(*run);
    range = {run->end(), range.end() - run->end()};
  }
}

void set(PageMarks* marks, AddressRange range, Mark mark) {
  const MapLock lock;
  marks->set(range, mark);
}

// Those with contents are kept here while they cannot be read, since evicting reads them.
int keep(AddressRange range) {
  int error = 0;
  for_runs(far_runtime.kept, range, Mark::kOff, [&error](AddressRange run) {
    for (std::uint64_t at = run.start; at < run.end() && error == 0; at += os::kPageBytes) {
      if (far_runtime.pager->state_of(at) == farmem::PageState::kEmpty) continue;
      const AddressRange page{at, os::kPageBytes};
      if (!far_runtime.pager->pin(page, os::UffdAccess::kRead)) error = ENOMEM;
      if (error == 0) set(far_runtime.kept, page, Mark::kOn);
    }
  });
  return error;
}

void let_go(PageMarks* pinned, AddressRange range) {
  for_runs(pinned, range, Mark::kOn, [pinned](AddressRange run) {
    far_runtime.pager->unpin(run);
    set(pinned, run, Mark::kOff);
  });
}

}  // namespace

std::optional<AddressRange> take_far(std::uint64_t bytes) {
  const MapLock lock;
  return far_runtime.ranges->take(bytes);
}

bool take_far_at(AddressRange range) {
  const MapLock lock;
  return far_runtime.ranges->take_at(range);
}

void release_far(AddressRange range) {
  on_local_stack([range] {
    let_go(far_runtime.locked, range);
    let_go(far_runtime.kept, range);
    far_runtime.pager->discard(range);
    for_runs(far_runtime.odd, range, Mark::kOn, [](AddressRange run) {
      os::kernel_protect(pointer(run.start), run.bytes, PROT_READ | PROT_WRITE);
      set(far_runtime.odd, run, Mark::kOff);
    });
    const MapLock lock;
    far_runtime.ranges->give_back(range);
  });
}

int discard_far(AddressRange range) {
  bool locked = false;
  on_local_stack([range, &locked] {
    {
      const MapLock lock;
      locked = far_runtime.locked->any(range);
    }
    if (locked) return;
    let_go(far_runtime.kept, range);
    far_runtime.pager->discard(range);
  });
  return locked ? EINVAL : 0;
}

int protect_far(AddressRange range, int protection) {
  int error = 0;
  on_local_stack([range, protection, &error] {
    const bool readable = (protection & PROT_READ) != 0;
    if (!readable) error = keep(range);
    if (error == 0 && os::kernel_protect(pointer(range.start), range.bytes, protection) != 0) {
      error = errno;
    }
    if (error != 0) return;
    if (readable) let_go(far_runtime.kept, range);
    const bool odd = (protection & (PROT_READ | PROT_WRITE | PROT_EXEC)) !=
                     (PROT_READ | PROT_WRITE);
    set(far_runtime.odd, range, odd ? Mark::kOn : Mark::kOff);
  });
  return error;
}

int lock_far(AddressRange range) {
  int error = 0;
  on_local_stack([range, &error] {
    for_runs(far_runtime.locked, range, Mark::kOff, [&error](AddressRange run) {
      if (error != 0) return;
      if (!far_runtime.pager->pin(run, os::UffdAccess::kWrite)) error = ENOMEM;
      if (error == 0) set(far_runtime.locked, run, Mark::kOn);
    });
  });
  return error;
}

void unlock_far(AddressRange range) {
  on_local_stack([range] { let_go(far_runtime.locked, range); });
}

void prefetch_far(AddressRange range) {
  on_local_stack([range] { far_runtime.pager->prefetch(range); });
}

}  // namespace isthmus::preload
