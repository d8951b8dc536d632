// The public ABI of librdmacm: the system's headers, and what newer releases added to them.
//
// Everything exported is declared inside the visibility pragma; the rest of the library is hidden.
// The functions of RDMACM_1.4 and 1.5 are declared here because the headers of older
// distributions do not have them.
#pragma once

#pragma GCC visibility push(default)
#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>
#include <rdma/rdma_verbs.h>
#include <rdma/rsocket.h>
#include <sys/epoll.h>

extern "C" {
int rdma_resolve_addrinfo(rdma_cm_id* id, const char* node, const char* service,
                          const rdma_addrinfo* hints);
int rdma_query_addrinfo(rdma_cm_id* id, rdma_addrinfo** info);
int rdma_write_cm_event(rdma_cm_id* id, rdma_cm_event_type event, int status, uint64_t argument);

int repoll_create(int flags);
int repoll_ctl(int epoll_fd, int operation, int socket, epoll_event* event);
int repoll_wait(int epoll_fd, epoll_event* events, int max_events, int timeout_ms);
}
#pragma GCC visibility pop

#include <cstddef>

namespace isthmus::rdmacm {

// Event types past the ones of the oldest header. An `int`, so that no header's enum has to agree.
inline constexpr int kEventAddressInfoResolved = 16;
inline constexpr int kEventAddressInfoError = 17;
inline constexpr int kEventUser = 18;

// Flags of rdma_getaddrinfo past the ones of the oldest header.
inline constexpr int kRaiServiceRecord = 0x10;
inline constexpr int kRaiDns = 0x20;

inline constexpr int kFamilyIb = 27;  // AF_IB, which libc does not name.

// Programs compiled against the real library touch these structs directly.
static_assert(sizeof(void*) == 8, "the layouts below are those of 64-bit machines");
static_assert(sizeof(rdma_cm_id) == 416 && offsetof(rdma_cm_id, qp) == 24 &&
              offsetof(rdma_cm_id, event) == 352 && offsetof(rdma_cm_id, pd) == 400);
static_assert(sizeof(rdma_cm_event) == 80 && offsetof(rdma_cm_event, param) == 24);
static_assert(sizeof(rdma_addrinfo) == 96 && sizeof(rdma_conn_param) == 24);

}  // namespace isthmus::rdmacm
