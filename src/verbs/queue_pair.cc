// Queue pairs: creation, state, posting, destruction.
#include <infiniband/verbs.h>

#include <pthread.h>

#include <cstring>

#include "verbs/context.h"
#include "verbs/operations.h"
#include "verbs/work_request_builder.h"

namespace isthmus::verbs {
namespace {

bool is_connected(ibv_qp_type type) {
  return type != IBV_QPT_UD && type != IBV_QPT_RAW_PACKET;
}

Result<rdma::QueuePairSpec> spec_of(const ibv_qp_init_attr_ex& attr) {
  rdma::QueuePairSpec spec{
      .type = attr.qp_type, .cap = attr.cap, .signal_all = attr.sq_sig_all != 0};
  const bool has_pd = attr.comp_mask & IBV_QP_INIT_ATTR_PD && attr.pd;
  switch (attr.qp_type) {
    case IBV_QPT_RC:
    case IBV_QPT_UC:
    case IBV_QPT_UD:
    case IBV_QPT_RAW_PACKET:
    case IBV_QPT_XRC_SEND:
      if (!has_pd || !attr.send_cq) return fail(ErrorCode::kInvalid, "a QP needs a PD and CQs");
      break;
    case IBV_QPT_XRC_RECV:
      if (!(attr.comp_mask & IBV_QP_INIT_ATTR_XRCD) || !attr.xrcd) {
        return fail(ErrorCode::kInvalid, "an XRC target needs an XRC domain");
      }
      spec.xrcd = static_cast<Xrcd*>(attr.xrcd)->domain.get();
      return spec;
    default: return fail(ErrorCode::kUnsupported, "QP type %d", static_cast<int>(attr.qp_type));
  }
  spec.pd = &Pd::of(attr.pd).domain();
  spec.send_cq = Cq::of(attr.send_cq).queue.get();
  if (attr.qp_type == IBV_QPT_XRC_SEND) {
    spec.cap.max_recv_wr = spec.cap.max_recv_sge = 0;
    return spec;
  }
  if (!attr.recv_cq) return fail(ErrorCode::kInvalid, "a QP needs a receive CQ");
  spec.recv_cq = Cq::of(attr.recv_cq).queue.get();
  if (attr.srq) {
    spec.srq = Srq::of(attr.srq).queue.get();
    spec.cap.max_recv_wr = spec.cap.max_recv_sge = 0;
  }
  return spec;
}

std::unique_ptr<Qp> wrap(Context& context, std::shared_ptr<rdma::QueuePair> pair) {
  auto made = std::make_unique<Qp>();
  ibv_qp& abi = made->qp_base;
  abi.context = context.abi();
  abi.handle = abi.qp_num = pair->qpn();
  abi.qp_type = pair->type();
  abi.state = pair->state();
  pthread_mutex_init(&abi.mutex, nullptr);
  pthread_cond_init(&abi.cond, nullptr);
  made->owner = &context;
  made->pair = std::move(pair);
  return made;
}

Qp* create(Context& context, ibv_qp_init_attr_ex& attr) {
  constexpr std::uint32_t kMask = IBV_QP_INIT_ATTR_PD | IBV_QP_INIT_ATTR_XRCD |
                                  IBV_QP_INIT_ATTR_CREATE_FLAGS | IBV_QP_INIT_ATTR_SEND_OPS_FLAGS;
  if ((attr.comp_mask & ~kMask) != 0) return no_object(EOPNOTSUPP);
  if ((attr.comp_mask & IBV_QP_INIT_ATTR_CREATE_FLAGS) && attr.create_flags != 0) {
    return no_object(EOPNOTSUPP);
  }
  if (context.is_inherited()) return no_object(EIO);
  const auto spec = spec_of(attr);
  if (!spec) return no_object(spec.error());

  const std::scoped_lock guard{context.lock};
  auto pair = context.engine().create_qp(*spec);
  if (!pair) {
    verbs_error(pair.error());
    // Without the right to raw Ethernet the kernel's word is this one.
    if (pair.error().code == ErrorCode::kDenied) errno = EPERM;
    return nullptr;
  }
  std::unique_ptr<Qp> made = wrap(context, std::move(*pair));
  ibv_qp& abi = made->qp_base;
  abi.qp_context = attr.qp_context;
  if (attr.qp_type != IBV_QPT_XRC_RECV) {
    abi.pd = attr.pd;
    abi.send_cq = attr.send_cq;
    abi.recv_cq = attr.recv_cq;
    abi.srq = attr.srq;
    // An imported domain may go before what was made with it; what it stands for may not.
    Pd& pd = Pd::of(attr.pd);
    made->domain = pd.is_imported ? pd.root : &pd;
    ++made->domain->named_by;
  }
  if (attr.comp_mask & IBV_QP_INIT_ATTR_SEND_OPS_FLAGS) {
    if (!WorkRequestBuilder::fill(*made, attr.send_ops_flags)) {
      if (made->domain) --made->domain->named_by;
      return no_object(EOPNOTSUPP);
    }
    made->builder = std::make_unique<WorkRequestBuilder>(made->pair->cap());
  }
  made->pair->cookie = made.get();
  attr.cap = made->pair->cap();
  context.objects.qps.insert(made.get());
  return made.release();
}

}  // namespace

ibv_qp* create_qp_ex(ibv_context* abi, ibv_qp_init_attr_ex* attr) {
  Qp* made = create(Context::of(abi), *attr);
  return made ? made->abi() : nullptr;
}

// A second object for an XRC target: whoever opened the domain may receive through it.
ibv_qp* open_qp(ibv_context* abi, ibv_qp_open_attr* attr) {
  Context& context = Context::of(abi);
  constexpr std::uint32_t kNeeded =
      IBV_QP_OPEN_ATTR_NUM | IBV_QP_OPEN_ATTR_XRCD | IBV_QP_OPEN_ATTR_TYPE;
  if (attr->comp_mask >= IBV_QP_OPEN_ATTR_RESERVED) return no_object(EOPNOTSUPP);
  if ((attr->comp_mask & kNeeded) != kNeeded || attr->qp_type != IBV_QPT_XRC_RECV) {
    return no_object(EINVAL);
  }
  if (context.is_inherited()) return no_object(EIO);
  const std::scoped_lock guard{context.lock};
  const rdma::XrcDomain* domain = static_cast<Xrcd*>(attr->xrcd)->domain.get();
  for (const Qp* known : context.objects.qps) {
    const bool is_it = known->pair->qpn() == attr->qp_num &&
                       known->pair->type() == IBV_QPT_XRC_RECV &&
                       known->pair->spec().xrcd == domain;
    if (!is_it) continue;
    std::unique_ptr<Qp> made = wrap(context, known->pair);
    if (attr->comp_mask & IBV_QP_OPEN_ATTR_CONTEXT) made->qp_base.qp_context = attr->qp_context;
    context.objects.qps.insert(made.get());
    return made.release()->abi();
  }
  return no_object(EINVAL);
}

int post_send(ibv_qp* abi, ibv_send_wr* wr, ibv_send_wr** bad) {
  Qp& qp = Qp::of(abi);
  Context& context = *qp.owner;
  if (context.is_inherited()) [[unlikely]] {
    *bad = wr;
    return EIO;
  }
  const std::scoped_lock guard{context.lock};
  const int error = context.engine().post_send(*qp.pair, wr, bad);
  context.progress().note_work();
  return error;
}

int post_recv(ibv_qp* abi, ibv_recv_wr* wr, ibv_recv_wr** bad) {
  Qp& qp = Qp::of(abi);
  Context& context = *qp.owner;
  if (context.is_inherited()) [[unlikely]] {
    *bad = wr;
    return EIO;
  }
  const std::scoped_lock guard{context.lock};
  return context.engine().post_recv(*qp.pair, wr, bad);
}

}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

ibv_qp* ibv_create_qp(ibv_pd* pd, ibv_qp_init_attr* attr) {
  using namespace isthmus::verbs;
  ibv_qp_init_attr_ex extended{};
  extended.qp_context = attr->qp_context;
  extended.send_cq = attr->send_cq;
  extended.recv_cq = attr->recv_cq;
  extended.srq = attr->srq;
  extended.cap = attr->cap;
  extended.qp_type = attr->qp_type;
  extended.sq_sig_all = attr->sq_sig_all;
  extended.comp_mask = IBV_QP_INIT_ATTR_PD;
  extended.pd = pd;
  Qp* made = create(*Pd::of(pd).owner, extended);
  if (!made) return nullptr;
  attr->cap = extended.cap;
  return made->abi();
}

ibv_qp_ex* ibv_qp_to_qp_ex(ibv_qp* abi) {
  isthmus::verbs::Qp& qp = isthmus::verbs::Qp::of(abi);
  return qp.builder ? &qp : nullptr;
}

int ibv_modify_qp(ibv_qp* abi, ibv_qp_attr* attr, int mask) {
  using namespace isthmus::verbs;
  Qp& qp = Qp::of(abi);
  Context& context = *qp.owner;
  if (context.is_inherited()) return verbs_error(EIO);
  isthmus::rdma::Admission admission;
  constexpr int kOfConnection = IBV_QP_STATE | IBV_QP_AV | IBV_QP_DEST_QPN;
  const bool connects = (mask & kOfConnection) == kOfConnection &&
                        attr->qp_state == IBV_QPS_RTR && is_connected(qp.qp_base.qp_type);
  if (connects) {
    auto admitted = context.admit(*qp.pair, *attr);
    if (!admitted) return verbs_error(static_cast<int>(admitted.error().code));
    admission = std::move(*admitted);
  }
  bool released = false;
  {
    const std::scoped_lock guard{context.lock};
    const auto modified =
        context.engine().modify_qp(*qp.pair, *attr, mask, connects ? &admission : nullptr);
    context.progress().note_work();
    if (!modified) return verbs_error(modified.error());
    qp.qp_base.state = qp.pair->state();
    released = (mask & IBV_QP_STATE) && attr->qp_state == IBV_QPS_RESET;
  }
  if (released && is_connected(qp.qp_base.qp_type)) context.release(qp.qp_base.qp_num);
  return 0;
}

int ibv_query_qp(ibv_qp* abi, ibv_qp_attr* attr, int, ibv_qp_init_attr* init) {
  using namespace isthmus::verbs;
  Qp& qp = Qp::of(abi);
  Context& context = *qp.owner;
  if (context.is_inherited()) return verbs_error(EIO);
  const std::scoped_lock guard{context.lock};
  std::memset(attr, 0, sizeof *attr);
  std::memset(init, 0, sizeof *init);
  context.engine().query_qp(*qp.pair, *attr, *init);
  init->qp_context = abi->qp_context;
  init->send_cq = abi->send_cq;
  init->recv_cq = abi->recv_cq;
  init->srq = abi->srq;
  qp.qp_base.state = attr->qp_state;
  return 0;
}

int ibv_destroy_qp(ibv_qp* abi) {
  using namespace isthmus::verbs;
  Qp* qp = &Qp::of(abi);
  Context& context = *qp->owner;
  if (context.is_inherited()) return verbs_error(EIO);
  std::uint32_t taken = 0;
  {
    const std::scoped_lock guard{context.lock};
    const bool last = qp->pair.use_count() == 1;
    if (qp->pair && last && qp->pair->in_use != 0) return verbs_error(EBUSY);
    if (qp->pair && qp->pair->cookie == qp) qp->pair->cookie = nullptr;  // No more events.
    context.async_events.purge(qp);
    taken = qp->async_events_taken;
  }
  pthread_mutex_lock(&abi->mutex);
  while (abi->events_completed != taken) pthread_cond_wait(&abi->cond, &abi->mutex);
  pthread_mutex_unlock(&abi->mutex);
  const bool connected = is_connected(abi->qp_type) && abi->state >= IBV_QPS_RTR;
  const std::uint32_t qpn = abi->qp_num;
  {
    const std::scoped_lock guard{context.lock};
    context.objects.qps.erase(qp);
    if (qp->domain) --qp->domain->named_by;
    qp->pair.reset();
  }
  delete qp;
  if (connected) context.release(qpn);
  return 0;
}

// Packets of a message are executed in their order, whatever the channel.
int ibv_query_qp_data_in_order(ibv_qp* abi, ibv_wr_opcode, uint32_t flags) {
  return flags == 0 && abi->qp_type == IBV_QPT_RC ? 1 : 0;
}

// Enhanced connection establishment negotiates vendor options; there are none.
int ibv_query_ece(ibv_qp*, ibv_ece* ece) {
  *ece = {};
  return isthmus::verbs::verbs_error(EOPNOTSUPP);
}

int ibv_set_ece(ibv_qp*, ibv_ece* ece) {
  if (ece->vendor_id == 0) return 0;
  return isthmus::verbs::verbs_error(EOPNOTSUPP);
}

}  // extern "C"
#pragma GCC visibility pop
