// Memory regions, memory windows and device memory.
#include <infiniband/verbs.h>

#include <algorithm>
#include <cstring>

#include "os/address_range.h"
#include "os/low_descriptors.h"
#include "verbs/context.h"
#include "verbs/operations.h"

#undef ibv_reg_mr
#undef ibv_reg_mr_iova

namespace isthmus::verbs {
namespace {

// What every access flag we know of is; the optional ones are hints.
constexpr unsigned kKnownAccess =
    IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_READ |
    IBV_ACCESS_REMOTE_ATOMIC | IBV_ACCESS_MW_BIND | IBV_ACCESS_ZERO_BASED | IBV_ACCESS_ON_DEMAND |
    IBV_ACCESS_HUGETLB | IBV_ACCESS_OPTIONAL_RANGE;

// Bytes; programs move whole words there, as they would over a bus.
constexpr std::size_t kDeviceMemoryUnit = 4;
constexpr std::uint32_t kMaxDeviceMemoryAlignmentLog = 12;
constexpr std::size_t kDeviceMemoryAlignment = 64;

ibv_mr* wrap(Pd& pd, std::unique_ptr<rdma::MemoryRegion> region) {
  auto made = std::make_unique<Mr>();
  made->context = pd.context;
  made->pd = &pd;
  made->addr = region->spec().address;
  made->length = region->spec().length;
  made->lkey = region->lkey();
  made->rkey = region->rkey();
  made->handle = region->lkey();
  made->owner = pd.owner;
  made->region = std::move(region);
  pd.owner->objects.mrs.insert(made.get());
  return made.release();
}

ibv_mr* register_memory(ibv_pd* abi, void* address, std::size_t length, std::uint64_t iova,
                        unsigned access) {
  Pd& pd = Pd::of(abi);
  Context& context = *pd.owner;
  if ((access & ~kKnownAccess) != 0) return no_object(EINVAL);
  if (context.is_inherited()) return no_object(EIO);
  const bool implicit = address == nullptr && length == SIZE_MAX;
  if (implicit && !(access & IBV_ACCESS_ON_DEMAND)) return no_object(EINVAL);
  if (access & IBV_ACCESS_ZERO_BASED) iova = 0;
  const std::scoped_lock guard{context.lock};
  auto region = context.engine().create_mr(
      pd.domain(), {.address = address, .length = length, .iova = iova, .access = access});
  if (!region) return no_object(region.error());
  return wrap(pd, std::move(*region));
}

struct FilePart {
  std::uint64_t offset;
  std::uint64_t length;
  std::uint64_t iova;
  int descriptor;
};

// A device gets the pages from the exporter of the buffer; we map them, as the program itself
// could. Memory files will do as well: neighbours on this host then map them too, and reach them
// without the kernel.
ibv_mr* register_file(ibv_pd* abi, const FilePart& part, unsigned access) {
  constexpr unsigned kAllowed = IBV_ACCESS_LOCAL_WRITE | IBV_ACCESS_REMOTE_READ |
                                IBV_ACCESS_REMOTE_WRITE | IBV_ACCESS_REMOTE_ATOMIC |
                                IBV_ACCESS_RELAXED_ORDERING;
  Pd& pd = Pd::of(abi);
  Context& context = *pd.owner;
  if ((access & ~kAllowed) != 0) return no_object(EOPNOTSUPP);
  if (context.is_inherited()) return no_object(EIO);
  const std::uint64_t skipped = part.offset % os::kPageBytes;
  if (part.length == 0 || part.iova % os::kPageBytes != skipped) return no_object(EINVAL);
  // High, where the program does not close it without looking.
  os::Fd file{os::duplicate_high(part.descriptor)};
  if (!file) return no_object(EBADF);
  const auto bytes = os::file_bytes(file);
  if (!bytes || part.offset > *bytes || part.length > *bytes - part.offset) {
    return no_object(EINVAL);
  }
  auto mapping =
      os::Mapping::create(file, part.length + skipped, part.offset - skipped);
  if (!mapping) return no_object(mapping.error());
  const std::scoped_lock guard{context.lock};
  auto region = context.engine().create_mr(
      pd.domain(), {.address = (*mapping)->data() + skipped,
                    .length = part.length,
                    .iova = part.iova,
                    .access = access,
                    .shared_file = static_cast<std::uint32_t>(file.get()) + 1,
                    .shared_offset = part.offset});
  if (!region) return no_object(region.error());
  auto* made = static_cast<Mr*>(wrap(pd, std::move(*region)));
  // As rdma-core has it: there is no address a program could use.
  made->addr = reinterpret_cast<void*>(part.offset);
  made->mapping = std::move(*mapping);
  made->file = std::move(file);
  return made;
}

bool is_in_range(const DeviceMemory& memory, std::uint64_t offset, std::size_t length) {
  return offset <= memory.length && length <= memory.length - offset;
}

bool is_in_units(std::uint64_t offset, std::size_t length) {
  return offset % kDeviceMemoryUnit == 0 && length % kDeviceMemoryUnit == 0;
}

int memcpy_to_dm(ibv_dm* abi, std::uint64_t offset, const void* from, std::size_t length) {
  auto& memory = *static_cast<DeviceMemory*>(abi);
  if (!is_in_units(offset, length)) return verbs_error(EINVAL);
  if (!is_in_range(memory, offset, length)) return verbs_error(EINVAL);
  std::memcpy(memory.bytes + offset, from, length);
  return 0;
}

int memcpy_from_dm(void* to, ibv_dm* abi, std::uint64_t offset, std::size_t length) {
  const auto& memory = *static_cast<DeviceMemory*>(abi);
  if (!is_in_units(offset, length)) return verbs_error(EINVAL);
  if (!is_in_range(memory, offset, length)) return verbs_error(EINVAL);
  std::memcpy(to, memory.bytes + offset, length);
  return 0;
}

// A window reaches the memory that its region had when it was bound.
bool has_windows(const Mr& mr) {
  return std::ranges::any_of(mr.owner->objects.mws, [&](const Mw* mw) {
    return mw->window->is_bound_to(*mr.region);
  });
}

}  // namespace

ibv_mr* alloc_null_mr(ibv_pd* abi) {
  Pd& pd = Pd::of(abi);
  Context& context = *pd.owner;
  if (context.is_inherited()) return no_object(EIO);
  const std::scoped_lock guard{context.lock};
  auto region = context.engine().create_null_mr(pd.domain());
  if (!region) return no_object(region.error());
  return wrap(pd, std::move(*region));
}

// Advice to fetch pages before they are used. Ours are the program's own and fault in by
// themselves, so there is nothing to do but to check the request as a device would.
int advise_mr(ibv_pd* abi, ibv_advise_mr_advice advice, std::uint32_t flags, ibv_sge* sges,
              std::uint32_t count) {
  Pd& pd = Pd::of(abi);
  Context& context = *pd.owner;
  if (context.is_inherited()) return verbs_error(EIO);
  if (advice > IBV_ADVISE_MR_ADVICE_PREFETCH_NO_FAULT) return verbs_error(EOPNOTSUPP);
  if ((flags & ~static_cast<std::uint32_t>(IBV_ADVISE_MR_FLAG_FLUSH)) != 0 || count == 0) {
    return verbs_error(EINVAL);
  }
  const std::scoped_lock guard{context.lock};
  for (std::uint32_t i = 0; i < count; ++i) {
    const auto& mrs = context.objects.mrs;
    const auto found =
        std::ranges::find_if(mrs, [&](const Mr* mr) { return mr->lkey == sges[i].lkey; });
    if (found == mrs.end()) return verbs_error(ENOENT);
    const rdma::MemoryRegion& region = *(*found)->region;
    const rdma::MemorySpec& spec = region.spec();
    if (&region.pd() != &pd.domain() || !(spec.access & IBV_ACCESS_ON_DEMAND)) {
      return verbs_error(EINVAL);
    }
    const bool in_range = sges[i].addr >= spec.iova && sges[i].addr - spec.iova <= spec.length &&
                          sges[i].length <= spec.length - (sges[i].addr - spec.iova);
    if (!in_range) return verbs_error(EFAULT);
    const bool writes = advice == IBV_ADVISE_MR_ADVICE_PREFETCH_WRITE;
    if (writes && !(spec.access & IBV_ACCESS_LOCAL_WRITE)) return verbs_error(EPERM);
  }
  return 0;
}

// Works in a forked child too: it is memory of this process and nothing else.
ibv_dm* alloc_dm(ibv_context* abi, ibv_alloc_dm_attr* attr) {
  Context& context = Context::of(abi);
  if (attr->comp_mask != 0) return no_object(EINVAL);
  if (attr->log_align_req > kMaxDeviceMemoryAlignmentLog) return no_object(EINVAL);
  const std::size_t alignment =
      std::max(kDeviceMemoryAlignment, std::size_t{1} << attr->log_align_req);
  if (attr->length == 0) return no_object(EINVAL);
  if (attr->length > kMaxDeviceMemoryBytes) return no_object(ENOMEM);

  auto made = std::make_unique<DeviceMemory>();
  made->storage = std::make_unique<std::byte[]>(attr->length + alignment);
  const auto start = reinterpret_cast<std::uintptr_t>(made->storage.get());
  made->bytes = made->storage.get() + (alignment - start % alignment) % alignment;
  made->length = attr->length;
  made->context = abi;
  made->memcpy_to_dm = &memcpy_to_dm;
  made->memcpy_from_dm = &memcpy_from_dm;
  made->owner = &context;
  made->handle = context.next_handle++;
  if (!context.is_inherited()) {
    const std::scoped_lock guard{context.lock};
    std::size_t& used = context.objects.device_memory_bytes;
    if (attr->length > kMaxDeviceMemoryBytes - used) return no_object(ENOMEM);
    used += attr->length;
    context.objects.device_memories.insert(made.get());
  }
  return made.release();
}

int free_dm(ibv_dm* abi) {
  auto* memory = static_cast<DeviceMemory*>(abi);
  if (!memory->owner->is_inherited()) {
    const std::scoped_lock guard{memory->owner->lock};
    if (memory->in_use != 0) return verbs_error(EBUSY);
    memory->owner->objects.device_memory_bytes -= memory->length;
    memory->owner->objects.device_memories.erase(memory);
  }
  delete memory;
  return 0;
}

ibv_mr* reg_dm_mr(ibv_pd* abi, ibv_dm* dm, std::uint64_t offset, std::size_t length,
                  unsigned access) {
  Pd& pd = Pd::of(abi);
  Context& context = *pd.owner;
  auto& memory = *static_cast<DeviceMemory*>(dm);
  if (context.is_inherited()) return no_object(EIO);
  if (!(access & IBV_ACCESS_ZERO_BASED) || (access & IBV_ACCESS_ON_DEMAND) ||
      (access & ~kKnownAccess) != 0 || !is_in_range(memory, offset, length)) {
    return no_object(EINVAL);
  }
  const std::scoped_lock guard{context.lock};
  auto region = context.engine().create_mr(
      pd.domain(),
      {.address = memory.bytes + offset, .length = length, .iova = 0, .access = access});
  if (!region) return no_object(region.error());
  ibv_mr* made = wrap(pd, std::move(*region));
  made->addr = nullptr;  // There is no address a program could use.
  static_cast<Mr*>(made)->device_memory = &memory;
  ++memory.in_use;
  return made;
}

ibv_mw* alloc_mw(ibv_pd* abi, ibv_mw_type type) {
  Pd& pd = Pd::of(abi);
  Context& context = *pd.owner;
  if (type != IBV_MW_TYPE_1 && type != IBV_MW_TYPE_2) return no_object(EINVAL);
  if (context.is_inherited()) return no_object(EIO);
  const std::scoped_lock guard{context.lock};
  auto window = context.engine().create_mw(pd.domain(), type);
  if (!window) return no_object(window.error());
  auto made = std::make_unique<Mw>();
  made->context = abi->context;
  made->pd = abi;
  made->rkey = made->handle = (*window)->rkey();
  made->type = type;
  made->owner = &context;
  made->window = std::move(*window);
  context.objects.mws.insert(made.get());
  return made.release();
}

int dealloc_mw(ibv_mw* abi) {
  auto* mw = static_cast<Mw*>(abi);
  Context& context = *mw->owner;
  if (context.is_inherited()) return EIO;
  {
    const std::scoped_lock guard{context.lock};
    context.objects.mws.erase(mw);
    mw->window.reset();
  }
  delete mw;
  return 0;
}

// Type 1: the library makes the new key and posts the binding for the program.
int bind_mw(ibv_qp* qp, ibv_mw* mw, ibv_mw_bind* bind) {
  // Bound from 0, an address would be an offset; type 2 windows alone could, and ours cannot.
  if (bind->bind_info.mw_access_flags & IBV_ACCESS_ZERO_BASED) return verbs_error(EINVAL);
  ibv_send_wr wr{};
  wr.wr_id = bind->wr_id;
  wr.opcode = IBV_WR_BIND_MW;
  wr.send_flags = bind->send_flags;
  wr.bind_mw.mw = mw;
  wr.bind_mw.rkey = ibv_inc_rkey(mw->rkey);
  wr.bind_mw.bind_info = bind->bind_info;
  ibv_send_wr* bad = nullptr;
  const int error = post_send(qp, &wr, &bad);
  if (error == 0) mw->rkey = wr.bind_mw.rkey;
  return error;
}

}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

ibv_mr* ibv_reg_mr(ibv_pd* pd, void* addr, size_t length, int access) {
  return isthmus::verbs::register_memory(pd, addr, length, reinterpret_cast<std::uintptr_t>(addr),
                                         static_cast<unsigned>(access));
}

ibv_mr* ibv_reg_mr_iova(ibv_pd* pd, void* addr, size_t length, uint64_t iova, int access) {
  return isthmus::verbs::register_memory(pd, addr, length, iova, static_cast<unsigned>(access));
}

ibv_mr* ibv_reg_mr_iova2(ibv_pd* pd, void* addr, size_t length, uint64_t iova,
                         unsigned int access) {
  return isthmus::verbs::register_memory(pd, addr, length, iova, access);
}

ibv_mr* ibv_reg_dmabuf_mr(ibv_pd* pd, uint64_t offset, size_t length, uint64_t iova, int fd,
                          int access) {
  return isthmus::verbs::register_file(pd, {offset, length, iova, fd},
                                       static_cast<unsigned>(access));
}

int ibv_rereg_mr(ibv_mr* abi, int flags, ibv_pd* pd, void* addr, size_t length, int access) {
  using namespace isthmus::verbs;
  auto& mr = *static_cast<Mr*>(abi);
  Context& context = *mr.owner;
  const auto input_error = [](int error_number) {
    verbs_error(error_number);
    return static_cast<int>(IBV_REREG_MR_ERR_INPUT);
  };
  if (context.is_inherited()) return input_error(EIO);
  const bool new_memory = flags & IBV_REREG_MR_CHANGE_TRANSLATION;
  const bool new_pd = flags & IBV_REREG_MR_CHANGE_PD;
  if (flags == 0 || (flags & ~IBV_REREG_MR_FLAGS_SUPPORTED) != 0 || mr.device_memory || mr.file ||
      (new_memory && length == 0) || (new_memory && !addr) || (new_pd && !pd)) {
    return input_error(EINVAL);
  }
  const std::scoped_lock guard{context.lock};
  if ((new_memory || new_pd) && has_windows(mr)) return input_error(EBUSY);
  const bool zero_based = mr.region->spec().access & IBV_ACCESS_ZERO_BASED;
  const auto changed = context.engine().reregister_mr(
      *mr.region, flags, new_pd ? &Pd::of(pd).domain() : nullptr,
      {.address = addr,
       .length = length,
       .iova = zero_based ? 0 : reinterpret_cast<std::uintptr_t>(addr),
       .access = static_cast<unsigned>(access)});
  if (!changed) return input_error(static_cast<int>(changed.error().code));
  mr.lkey = mr.region->lkey();
  mr.rkey = mr.region->rkey();
  if (new_pd) mr.pd = pd;
  if (new_memory) {
    mr.addr = addr;
    mr.length = length;
  }
  return 0;
}

int ibv_dereg_mr(ibv_mr* abi) {
  using namespace isthmus::verbs;
  auto* mr = static_cast<Mr*>(abi);
  Context& context = *mr->owner;
  if (context.is_inherited()) return verbs_error(EIO);
  {
    const std::scoped_lock guard{context.lock};
    if (mr->region && has_windows(*mr)) return verbs_error(EBUSY);
    context.objects.mrs.erase(mr);
    if (mr->device_memory) --mr->device_memory->in_use;
    mr->region.reset();
  }
  delete mr;
  return 0;
}

}  // extern "C"
#pragma GCC visibility pop
