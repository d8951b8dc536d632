#include "verbs/context.h"

#include <pthread.h>

#include <algorithm>

#include "base/log.h"
#include "os/clock.h"
#include "os/random.h"
#include "os/shared_memory.h"
#include "rdma/capture_ring.h"
#include "rdma/ethernet_port.h"
#include "verbs/inheritance.h"
#include "verbs/operations.h"
#include "verbs/work_request_builder.h"

namespace isthmus::verbs {

Qp::Qp() = default;
Qp::~Qp() = default;

int verbs_error(int error_number) {
  errno = error_number;
  return error_number;
}

int verbs_error(const Error& error) {
  ISTHMUS_LOG(kDebug, "%s", error.message.c_str());
  return verbs_error(static_cast<int>(error.code));
}

Context::Context(ibv_device& device, std::unique_ptr<attach::AttachClient> attachment)
    : device_(device), attachment_(std::move(attachment)) {}

std::unique_ptr<Context::Abi> Context::make_abi() {
  auto made = std::make_unique<Abi>();
  fill_operations(*made);
  ibv_context& context = made->verbs.context;
  context.device = &device_;
  context.cmd_fd = command_fd_.get();
  context.async_fd = async_events.fd();
  context.num_comp_vectors = kCompletionVectors;
  pthread_mutex_init(&context.mutex, nullptr);
  context.abi_compat = __VERBS_ABI_IS_EXTENDED;
  return made;
}

ibv_context* Context::import_again() {
  const std::scoped_lock guard{lock};
  return &imported_.emplace_back(make_abi())->verbs.context;
}

bool Context::close(ibv_context* closed) {
  const std::scoped_lock guard{lock};
  if (closed == abi()) {
    abi_closed_ = true;
  } else {
    std::erase_if(imported_, [&](const auto& one) { return &one->verbs.context == closed; });
  }
  return abi_closed_ && imported_.empty();
}

Result<std::unique_ptr<Context>> Context::open(ibv_device& device,
                                               std::unique_ptr<attach::AttachClient> attachment) {
  std::unique_ptr<Context> made{new Context(device, std::move(attachment))};
  ISTHMUS_TRY_VOID(made->start());
  return made;
}

Result<void> Context::start() {
  attach::FunctionGrant& grant = attachment_->grant();
  facts_ = facts_of(grant.node_guid, grant.gids);
  port_ = ISTHMUS_TRY(rdma::UdpPort::create(std::move(grant.udp_sockets)));
  ISTHMUS_TRY_VOID(async_events.open());
  command_fd_ = ISTHMUS_TRY(os::create_shared_memory("isthmus-command", 1));
  command_file_ = ISTHMUS_TRY(os::file_identity(command_fd_.get()));
  abi_ = make_abi();

  std::vector<wire::IpAddress> gids;
  for (const GidFact& gid : facts_.gids) gids.push_back(gid.address);
  const std::uint32_t mtu_bytes = 128u << facts_.active_mtu;  // IBV_MTU_256 is 1.
  engine_ = std::make_unique<rdma::Engine>(rdma::EngineOptions{.window = grant.window,
                                                               .doorbell_fd = grant.doorbell_fd,
                                                               .function = grant.function,
                                                               .gids = std::move(gids),
                                                               .datagram_bytes = mtu_bytes,
                                                               .random = &os::random_u64,
                                                               .now_ns = &os::now_ns,
                                                               .open_frame_port =
                                                                   [this] {
                                                                     return open_frame_port();
                                                                   }},
                                           *port_, *this);
  progress_ = ISTHMUS_TRY(Progress::create(lock, *engine_,
                                           {.port_fd = port_->fd(),
                                            .doorbell_fd = grant.doorbell_fd,
                                            .daemon_fd = attachment_->event_fd(),
                                            .serve_daemon = [this] { serve_daemon(); }}));
  enlist_for_fork(*this);
  return {};
}

// Raw Ethernet is that of the interface of the device's first GID.
Result<std::unique_ptr<rdma::FramePort>> Context::open_frame_port() {
  const auto gid = std::ranges::find_if(facts_.gids, &GidFact::is_used);
  if (gid == facts_.gids.end()) {
    return fail(ErrorCode::kUnsupported, "raw Ethernet: no network interface has an address");
  }
  return ISTHMUS_TRY(
      rdma::EthernetPort::create(gid->interface_name, gid->mtu, port_->readable()));
}

Context::~Context() {
  delist_for_fork(*this);
  if (inherited_) {
    // The parent's device: nothing of it may be touched, so its objects are left where they are.
    progress_.release();
    engine_.release();
    port_.release();
    attachment_.release();
    return;
  }
  progress_.reset();
  free_objects();
}

// Objects that the program did not destroy. Their ABI parts stay: the program may hold them.
void Context::free_objects() {
  for (FlowSteering* flow : objects.flows) engine_->detach_flow(flow->number);
  for (Qp* qp : objects.qps) qp->pair.reset();
  for (Srq* srq : objects.srqs) srq->queue.reset();
  for (Cq* cq : objects.cqs) cq->queue.reset();
  for (Mw* mw : objects.mws) mw->window.reset();
  for (Mr* mr : objects.mrs) mr->region.reset();
  for (Pd* pd : objects.pds) pd->own.reset();
  for (Xrcd* xrcd : objects.xrcds) xrcd->domain.reset();
}

void Context::become_inherited() {
  inherited_ = true;
  lock.reset();
  progress_->abandon();
  attachment_->abandon();
}

DeviceFacts Context::facts() {
  const std::scoped_lock guard{lock};
  return facts_;
}

Result<rdma::Admission> Context::admit(const rdma::QueuePair& pair, const ibv_qp_attr& attr) {
  attach::AdmitRequest request{.qpn = pair.qpn(),
                               .dest_qpn = attr.dest_qp_num,
                               .transport = static_cast<std::uint32_t>(pair.type())};
  request.remote_gid = wire::IpAddress::from_bytes(
      std::as_bytes(std::span<const std::uint8_t, 16>{attr.ah_attr.grh.dgid.raw}));
  {
    const std::scoped_lock guard{lock};
    const auto gids = engine_->gids();
    if (attr.ah_attr.grh.sgid_index >= gids.size()) {
      return fail(ErrorCode::kInvalid, "no GID with index %u", attr.ah_attr.grh.sgid_index);
    }
    request.local_gid = gids[attr.ah_attr.grh.sgid_index];
  }
  auto grant = attachment_->admit(request);
  if (!grant) {
    ISTHMUS_LOG(kError, "connection of queue pair 0x%06x to 0x%06x at %s: %s", request.qpn,
                request.dest_qpn, request.remote_gid.to_string().c_str(),
                grant.error().message.c_str());
    return std::unexpected(std::move(grant.error()));
  }
  return rdma::Admission{.neighbour = std::move(grant->neighbour),
                         .allowed_access = grant->allowed_access};
}

void Context::release(std::uint32_t qpn) { attachment_->release(qpn); }

void Context::serve_daemon() {
  while (auto event = attachment_->next_event()) {
    {
      const std::scoped_lock guard{lock};
      apply(*event);
    }
    const bool wanted = event->kind == attach::AttachEventKind::kRevoke ||
                        event->kind == attach::AttachEventKind::kRestrict ||
                        event->kind == attach::AttachEventKind::kChannel;
    if (wanted) attachment_->acknowledge(*event);
  }
}

void Context::apply(const attach::AttachEvent& event) {
  switch (event.kind) {
    case attach::AttachEventKind::kRevoke:
      ISTHMUS_LOG(kWarning, "policy: queue pair 0x%06x may not stay connected", event.qpn);
      engine_->revoke(event.qpn);
      break;
    case attach::AttachEventKind::kRestrict:
      engine_->restrict_access(event.qpn, event.access);
      break;
    case attach::AttachEventKind::kChannel:
      if (const auto switched = engine_->switch_channel(event.qpn, event.channel); !switched) {
        ISTHMUS_LOG(kInfo, "%s", switched.error().message.c_str());
      }
      break;
    case attach::AttachEventKind::kGids: {
      facts_ = facts_of(facts_.guid, event.gids);
      std::vector<wire::IpAddress> gids;
      for (const GidFact& gid : facts_.gids) gids.push_back(gid.address);
      engine_->set_gids(std::move(gids));
      async_events.add({.type = IBV_EVENT_GID_CHANGE});
      break;
    }
    case attach::AttachEventKind::kCapture:
      if (const auto started = start_capture(event.capture); !started) {
        ISTHMUS_LOG(kWarning, "capture: %s", started.error().message.c_str());
      }
      break;
    case attach::AttachEventKind::kClosing:
      async_events.add({.type = IBV_EVENT_DEVICE_FATAL});
      break;
  }
}

Result<void> Context::start_capture(const os::Fd& file) {
  ISTHMUS_TRY_VOID(os::check_shared_memory(file, rdma::kCaptureFileBytes));
  std::shared_ptr<os::Mapping> mapping =
      ISTHMUS_TRY(os::Mapping::create(file, rdma::kCaptureFileBytes));
  const std::span<std::byte> bytes = mapping->bytes();
  engine_->set_capture(ISTHMUS_TRY(rdma::CaptureRing::open(bytes, std::move(mapping))));
  return {};
}

void Context::on_async_event(ibv_event_type type, rdma::QueuePair* pair,
                             rdma::CompletionQueue* queue, rdma::SharedReceiveQueue* shared) {
  AsyncEvent event{.type = type};
  if (pair) event.qp = static_cast<Qp*>(pair->cookie);
  if (queue) event.cq = static_cast<Cq*>(queue->cookie);
  if (shared) event.srq = static_cast<Srq*>(shared->cookie);
  // Without its ABI object nobody could be told: a QP in the middle of its creation or end.
  if (event.qp || event.cq || event.srq) async_events.add(event);
}

namespace {

int compat_query_device(ibv_context* context, ibv_device_attr* attr) {
  return ibv_query_device(context, attr);
}

int compat_query_port(ibv_context* context, std::uint8_t port_number,
                      _compat_ibv_port_attr* attr) {
  // The macro of verbs.h calls query_port(); binaries of old call the function.
  return (ibv_query_port)(context, port_number, attr);
}

int modify_qp_rate_limit(ibv_qp*, ibv_qp_rate_limit_attr*) { return EOPNOTSUPP; }

}  // namespace

// What is not here is null, which the inline functions of verbs.h turn into EOPNOTSUPP.
void Context::fill_operations(Abi& abi) {
  verbs_context& verbs = abi.verbs;
  verbs.sz = sizeof verbs;
  // SAFETY: priv is for the library behind the ABI alone; of() casts it back.
  verbs.priv = reinterpret_cast<verbs_ex_private*>(this);
  verbs.query_port = &query_port;
  verbs.advise_mr = &advise_mr;
  verbs.alloc_null_mr = &alloc_null_mr;
  verbs.reg_dm_mr = &reg_dm_mr;
  verbs.alloc_dm = &alloc_dm;
  verbs.free_dm = &free_dm;
  verbs.modify_qp_rate_limit = &modify_qp_rate_limit;
  verbs.alloc_parent_domain = &alloc_parent_domain;
  verbs.dealloc_td = &dealloc_td;
  verbs.alloc_td = &alloc_td;
  verbs.modify_cq = &modify_cq;
  verbs.query_rt_values = &query_rt_values;
  verbs.create_cq_ex = &create_cq_ex;
  verbs.ibv_create_flow = &create_flow;
  verbs.ibv_destroy_flow = &destroy_flow;
  verbs.query_device_ex = &query_device_ex;
  verbs.open_qp = &open_qp;
  verbs.create_qp_ex = &create_qp_ex;
  verbs.get_srq_num = &get_srq_num;
  verbs.create_srq_ex = &create_srq_ex;
  verbs.open_xrcd = &open_xrcd;
  verbs.close_xrcd = &close_xrcd;

  ibv_context_ops& ops = verbs.context.ops;
  ops._compat_query_device = &compat_query_device;
  ops._compat_query_port = &compat_query_port;
  ops.alloc_mw = &alloc_mw;
  ops.bind_mw = &bind_mw;
  ops.dealloc_mw = &dealloc_mw;
  ops.poll_cq = &poll_cq;
  ops.req_notify_cq = &req_notify_cq;
  ops.post_srq_recv = &post_srq_recv;
  ops.post_send = &post_send;
  ops.post_recv = &post_recv;
}

}  // namespace isthmus::verbs
