// The objects of the verbs ABI: what programs see of each, and behind it the engine's object.
//
// Primer: a program holds pointers to the structs of infiniband/verbs.h, reads and sometimes
// writes their fields, and calls the functions it finds in some of them. Ours derive from those
// structs, so that a cast leads back. Newer releases of rdma-core make some structs longer: a
// program built for one may look past the end that we know, so each has room there, zeroed.
//
// Threading: the fields of ours belong to the context's lock, unless said otherwise.
#pragma once

#include <infiniband/verbs.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "os/fd.h"
#include "os/shared_memory.h"
#include "rdma/address_handle.h"
#include "rdma/completion_queue.h"
#include "rdma/memory_region.h"
#include "rdma/queue_pair.h"
#include "rdma/shared_receive_queue.h"
#include "verbs/context_lock.h"

namespace isthmus::verbs {

class Context;
class WorkRequestBuilder;

template <class Abi>
struct Roomy : Abi {
  Roomy() : Abi{} {}
  std::byte room_for_newer_layouts[128]{};
};

struct ThreadDomain : Roomy<ibv_td> {
  Context* owner = nullptr;
  std::uint32_t in_use = 0;  // Parent domains.
};

// A protection domain, or a parent domain: another name of one, with a thread domain.
struct Pd : Roomy<ibv_pd> {
  Context* owner = nullptr;
  std::unique_ptr<rdma::ProtectionDomain> own;  // Null in a parent domain.
  Pd* root = nullptr;                           // Has `own`: itself, or the one it is a name of.
  ThreadDomain* thread_domain = nullptr;
  bool is_imported = false;                     // Another name, by ibv_import_pd.
  std::uint32_t parent_domains = 0;             // That name it.
  std::uint32_t named_by = 0;                   // QPs created with it.

  rdma::ProtectionDomain& domain() { return *root->own; }
  static Pd& of(ibv_pd* abi) { return *static_cast<Pd*>(abi); }
};

struct DeviceMemory : Roomy<ibv_dm> {
  Context* owner = nullptr;
  std::unique_ptr<std::byte[]> storage;  // Null when imported.
  std::byte* bytes = nullptr;            // Aligned, within storage.
  std::size_t length = 0;
  std::uint32_t in_use = 0;  // Regions.
};

struct Mr : Roomy<ibv_mr> {
  Context* owner = nullptr;
  std::unique_ptr<rdma::MemoryRegion> region;
  DeviceMemory* device_memory = nullptr;
  // Of ibv_reg_dmabuf_mr: the region's memory, and a descriptor that neighbours find it by.
  std::unique_ptr<os::Mapping> mapping;
  os::Fd file;
};

struct Mw : Roomy<ibv_mw> {
  Context* owner = nullptr;
  std::unique_ptr<rdma::MemoryWindow> window;
};

struct Cq;

// Events wait in the CQs that have some, which stand in a list; the descriptor counts them.
struct Channel : Roomy<ibv_comp_channel> {
  Context* owner = nullptr;
  os::Fd event_fd;
  Cq* first = nullptr;
  Cq* last = nullptr;
  std::uint32_t events = 0;     // In all CQs of the list.
  std::uint32_t signalled = 0;  // Of them: counted by the descriptor; the others found a thread
                                // awake in ibv_get_cq_event that takes them without it.
  std::uint32_t awake = 0;      // Such threads.
  bool blocked_on = false;      // By the last one that had to wait.

  static Channel& of(ibv_comp_channel* abi) { return *static_cast<Channel*>(abi); }
};

struct Cq : Roomy<ibv_cq_ex> {
  Context* owner = nullptr;
  std::unique_ptr<rdma::CompletionQueue> queue;
  std::uint32_t empty_polls = 0;  // In a row.
  std::uint32_t events = 0;  // Waiting in the channel.
  Cq* next = nullptr;        // In the channel's list.
  std::uint32_t completion_events_taken = 0;
  std::uint32_t async_events_taken = 0;

  // The extended interface: what start_poll() and next_poll() took last. From start_poll() to
  // end_poll() they belong to the thread that holds poll_lock.
  ContextLock poll_lock;
  bool single_threaded = false;  // The program promised it.
  ibv_wc current{};
  std::uint64_t current_timestamp_ns = 0;

  ibv_cq* abi() { return reinterpret_cast<ibv_cq*>(static_cast<ibv_cq_ex*>(this)); }
  // SAFETY: ibv_cq is the beginning of ibv_cq_ex, and every CQ we hand out is one of these.
  static Cq& of(ibv_cq* abi) { return *static_cast<Cq*>(reinterpret_cast<ibv_cq_ex*>(abi)); }
  static Cq& of(ibv_cq_ex* abi) { return *static_cast<Cq*>(abi); }
};

struct Srq : Roomy<ibv_srq> {
  Context* owner = nullptr;
  std::unique_ptr<rdma::SharedReceiveQueue> queue;
  std::uint32_t async_events_taken = 0;

  static Srq& of(ibv_srq* abi) { return *static_cast<Srq*>(abi); }
};

struct Xrcd : Roomy<ibv_xrcd> {
  Context* owner = nullptr;
  std::shared_ptr<rdma::XrcDomain> domain;  // One for all that were opened with the same file.
};

struct Qp : Roomy<ibv_qp_ex> {
  Context* owner = nullptr;
  std::shared_ptr<rdma::QueuePair> pair;  // Shared with those of ibv_open_qp().
  std::unique_ptr<WorkRequestBuilder> builder;  // Null: created without ibv_wr_*.
  Pd* domain = nullptr;                   // Null for XRC_RECV.
  std::uint32_t async_events_taken = 0;
  std::uint32_t multicast_groups = 0;

  ibv_qp* abi() { return &qp_base; }
  // SAFETY: ibv_qp is the first member of ibv_qp_ex, and every QP we hand out is one of these.
  static Qp& of(ibv_qp* abi) { return *static_cast<Qp*>(reinterpret_cast<ibv_qp_ex*>(abi)); }
  static Qp& of(ibv_qp_ex* abi) { return *static_cast<Qp*>(abi); }
  Qp();
  ~Qp();
};

struct FlowSteering : Roomy<ibv_flow> {
  Context* owner = nullptr;
  std::uint32_t number = 0;  // The engine's, of its rule.
};

// The engine reads the address handle that a work request names, so it is the engine's struct.
struct Ah {
  rdma::AddressHandle handle;
  std::byte room_for_newer_layouts[128]{};
  Context* owner = nullptr;
  rdma::ProtectionDomain* domain = nullptr;

  // SAFETY: the ABI object is the first member of the first member.
  static Ah& of(ibv_ah* abi) { return *reinterpret_cast<Ah*>(abi); }
};

}  // namespace isthmus::verbs
