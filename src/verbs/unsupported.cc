// Functions of the ABI that ask for what a device of this kind cannot have, and those of releases
// newer than the header we build with. They are here so that programs start.
#include <infiniband/verbs.h>

#include "verbs/context.h"

namespace isthmus::verbs {
namespace {

constexpr std::uint64_t kMrInitIova = 1 << 0;
constexpr std::uint64_t kMrInitAddress = 1 << 1;

// struct ibv_mr_init_attr of rdma-core v59, as far as we use it.
struct MrInit {
  std::size_t length;
  int access;
  std::uint64_t comp_mask;
  std::uint64_t iova;
  void* address;
};

}  // namespace
}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

using isthmus::verbs::no_object;
using isthmus::verbs::verbs_error;

// Forks need no preparation: no memory is pinned.
int ibv_fork_init() { return 0; }
ibv_fork_status ibv_is_fork_initialized() { return IBV_FORK_UNNEEDED; }
int ibv_dontfork_range(void*, size_t) { return 0; }
int ibv_dofork_range(void*, size_t) { return 0; }

// Since v59: DMA handles, and registration with everything optional.
void* ibv_alloc_dmah(ibv_context*, void*) { return no_object(EOPNOTSUPP); }
int ibv_dealloc_dmah(void*) { return verbs_error(EOPNOTSUPP); }
ibv_mr* ibv_reg_mr_ex(ibv_pd* pd, isthmus::verbs::MrInit* init) {
  using namespace isthmus::verbs;
  if ((init->comp_mask & ~(kMrInitIova | kMrInitAddress)) != 0) return no_object(EOPNOTSUPP);
  if (!(init->comp_mask & kMrInitAddress)) return no_object(EINVAL);
  const std::uint64_t iova = init->comp_mask & kMrInitIova
                                 ? init->iova
                                 : reinterpret_cast<std::uintptr_t>(init->address);
  return ibv_reg_mr_iova2(pd, init->address, init->length, iova,
                          static_cast<unsigned>(init->access));
}

// Since v62 to v65: buffers of the device, completion counters.
int ibv_dm_export_dmabuf_fd(ibv_dm*) { return -verbs_error(EOPNOTSUPP); }
void* ibv_alloc_buf(ibv_context*, void*) { return no_object(EOPNOTSUPP); }
int ibv_free_buf(void*) { return verbs_error(EOPNOTSUPP); }
ibv_mr* ibv_reg_buf_mr(ibv_pd*, void*) { return no_object(EOPNOTSUPP); }
int ibv_export_buf_dmabuf_fd(void*) { return -verbs_error(EOPNOTSUPP); }
int _ibv_query_comp_cntr_caps(ibv_context*, void*, size_t) { return verbs_error(EOPNOTSUPP); }
void* ibv_create_comp_cntr(ibv_context*, void*) { return no_object(EOPNOTSUPP); }
int ibv_destroy_comp_cntr(void*) { return verbs_error(EOPNOTSUPP); }
int ibv_inc_comp_cntr(void*, uint64_t) { return verbs_error(EOPNOTSUPP); }
int ibv_inc_err_comp_cntr(void*, uint64_t) { return verbs_error(EOPNOTSUPP); }
int ibv_qp_attach_comp_cntr(ibv_qp*, void*, void*) { return verbs_error(EOPNOTSUPP); }
int ibv_read_comp_cntr(void*, uint64_t*) { return verbs_error(EOPNOTSUPP); }
int ibv_read_err_comp_cntr(void*, uint64_t*) { return verbs_error(EOPNOTSUPP); }
int ibv_set_comp_cntr(void*, uint64_t) { return verbs_error(EOPNOTSUPP); }
int ibv_set_err_comp_cntr(void*, uint64_t) { return verbs_error(EOPNOTSUPP); }

}  // extern "C"
#pragma GCC visibility pop
