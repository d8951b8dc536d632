// Owners of the objects of libibverbs and librdmacm. They end in the reverse order of their
// beginnings; destroying an object that others still use fails, so members are declared in order.
#pragma once

#include <infiniband/verbs.h>
#include <rdma/rdma_cma.h>

#include <memory>

namespace isthmus::farmem {

struct VerbsEnd {
  void operator()(ibv_context* context) const { ibv_close_device(context); }
  void operator()(ibv_pd* pd) const { ibv_dealloc_pd(pd); }
  void operator()(ibv_mr* mr) const { ibv_dereg_mr(mr); }
  void operator()(ibv_comp_channel* channel) const { ibv_destroy_comp_channel(channel); }
  void operator()(ibv_cq* cq) const { ibv_destroy_cq(cq); }
  void operator()(ibv_qp* qp) const { ibv_destroy_qp(qp); }
  void operator()(rdma_event_channel* channel) const { rdma_destroy_event_channel(channel); }
  void operator()(rdma_cm_id* id) const { rdma_destroy_id(id); }
  void operator()(rdma_addrinfo* info) const { rdma_freeaddrinfo(info); }
};

using ContextOwner = std::unique_ptr<ibv_context, VerbsEnd>;
using PdOwner = std::unique_ptr<ibv_pd, VerbsEnd>;
using MrOwner = std::unique_ptr<ibv_mr, VerbsEnd>;
using CompletionChannelOwner = std::unique_ptr<ibv_comp_channel, VerbsEnd>;
using CqOwner = std::unique_ptr<ibv_cq, VerbsEnd>;
using QpOwner = std::unique_ptr<ibv_qp, VerbsEnd>;
using EventChannelOwner = std::unique_ptr<rdma_event_channel, VerbsEnd>;
using CmIdOwner = std::unique_ptr<rdma_cm_id, VerbsEnd>;
using AddressInfoOwner = std::unique_ptr<rdma_addrinfo, VerbsEnd>;

}  // namespace isthmus::farmem
