#include "control/grpc/control_client.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <chrono>
#include <mutex>
#include <utility>

#include "control.grpc.pb.h"
#include "control/grpc/status_code.h"
#include "os/unix_peer.h"

namespace isthmus::control {
namespace {

constexpr std::chrono::seconds kCallPatience{10};
constexpr int kMaxReplyBytes = 64 << 20;  // 100000 queue pairs.

TrafficReport take(const Traffic& from) {
  return {.messages_sent = from.messages_sent(),
          .messages_received = from.messages_received(),
          .bytes_sent = from.bytes_sent(),
          .bytes_received = from.bytes_received(),
          .packets_sent = from.packets_sent(),
          .packets_received = from.packets_received(),
          .retries = from.retries(),
          .drops = from.drops()};
}

QueuePairReport take(const QueuePair& from) {
  return {.qpn = from.qpn(),
          .type = from.type(),
          .state = from.state(),
          .local_gid = from.local_gid(),
          .remote_gid = from.remote_gid(),
          .dest_qpn = from.dest_qpn(),
          .channel = from.channel(),
          .access = from.access(),
          .traffic = take(from.traffic())};
}

FunctionReport take(const Function& from) {
  FunctionReport to{.index = from.index(),
                    .generation = from.generation(),
                    .process_id = from.process_id(),
                    .program = from.program(),
                    .label = from.label(),
                    .queue_pair_count = from.queue_pair_count(),
                    .memory_region_count = from.memory_region_count(),
                    .completion_queue_count = from.completion_queue_count(),
                    .registered_bytes = from.registered_bytes(),
                    .traffic = take(from.traffic())};
  for (const auto& qp : from.queue_pairs()) to.queue_pairs.push_back(take(qp));
  for (const auto& region : from.memory_regions()) {
    to.memory_regions.push_back({.key = region.key(),
                                 .iova = region.iova(),
                                 .length = region.length(),
                                 .access = region.access(),
                                 .window = region.window()});
  }
  return to;
}

StatusReport take(const StatusReply& from) {
  StatusReport to{.label = from.label(),
                  .version = from.version(),
                  .process_id = from.process_id(),
                  .private_daemon = from.private_daemon(),
                  .taken_ns = from.taken_ns(),
                  .started_ns = from.started_ns(),
                  .addresses = {from.addresses().begin(), from.addresses().end()},
                  .socket = from.socket()};
  for (const auto& function : from.functions()) to.functions.push_back(take(function));
  for (const auto& counter : from.counters()) {
    to.counters.push_back({.name = counter.name(), .value = counter.value()});
  }
  return to;
}

PolicyReport take(const PolicyReply& from) {
  PolicyReport to{.document = from.document(), .name = from.name()};
  for (const auto& connection : from.connections()) {
    to.connections.push_back({.qpn = connection.qpn(),
                              .process_id = connection.process_id(),
                              .program = connection.program(),
                              .from = connection.from(),
                              .to = connection.to(),
                              .port = connection.port(),
                              .transport = connection.transport(),
                              .decision = connection.decision(),
                              .rights = connection.rights(),
                              .rule = connection.rule(),
                              .changed = connection.changed()});
  }
  return to;
}

wire::IpAddress address_of(const std::string& bytes) {
  wire::IpAddress::Bytes raw{};
  std::ranges::transform(bytes.substr(0, raw.size()), raw.begin(),
                         [](char c) { return static_cast<std::byte>(c); });
  return wire::IpAddress{raw};
}

PacketBatchReport take(const PacketBatch& from) {
  PacketBatchReport to{.dropped = from.dropped()};
  for (const auto& packet : from.packets()) {
    std::vector<std::byte> payload(packet.payload().size());
    std::ranges::transform(packet.payload(), payload.begin(),
                           [](char c) { return static_cast<std::byte>(c); });
    to.packets.push_back({.timestamp_ns = packet.timestamp_ns(),
                          .incoming = packet.incoming(),
                          .memory_channel = packet.memory_channel(),
                          .source = address_of(packet.source()),
                          .destination = address_of(packet.destination()),
                          .source_port = static_cast<std::uint16_t>(packet.source_port()),
                          .ip_id = static_cast<std::uint16_t>(packet.ip_id()),
                          .original_bytes = packet.original_bytes(),
                          .payload = std::move(payload),
                          .process_id = packet.process_id(),
                          .local_qpn = packet.local_qpn()});
  }
  return to;
}

StatusRequest request_of(const StatusDetail& detail) {
  StatusRequest request;
  request.set_queue_pairs(detail.queue_pairs);
  request.set_memory_regions(detail.memory_regions);
  return request;
}

class GrpcControlClient final : public ControlClient {
 public:
  explicit GrpcControlClient(std::shared_ptr<::grpc::Channel> channel)
      : stub_(Control::NewStub(channel)) {}

  Result<VersionReport> version() override {
    VersionReply reply;
    ISTHMUS_TRY_VOID(
        call([&](auto* context) { return stub_->GetVersion(context, VersionRequest{}, &reply); }));
    return VersionReport{.version = reply.version(), .process_id = reply.process_id()};
  }

  Result<StatusReport> status(const StatusDetail& detail) override {
    StatusReply reply;
    ISTHMUS_TRY_VOID(
        call([&](auto* context) { return stub_->GetStatus(context, request_of(detail), &reply); }));
    return take(reply);
  }

  Result<void> watch_status(const StatusDetail& detail, std::uint32_t interval_ms,
                            const std::function<Continue(StatusReport)>& next) override {
    WatchStatusRequest request;
    *request.mutable_status() = request_of(detail);
    request.set_interval_ms(interval_ms);
    return stream<StatusReply>([&](auto* context) { return stub_->WatchStatus(context, request); },
                               next);
  }

  Result<PolicyReport> policy() override {
    PolicyReply reply;
    ISTHMUS_TRY_VOID(
        call([&](auto* context) { return stub_->GetPolicy(context, PolicyRequest{}, &reply); }));
    return take(reply);
  }

  Result<PolicyReport> change_policy(const PolicyChange& change) override {
    ApplyPolicyRequest request;
    request.set_document(change.document);
    request.set_name(change.name);
    request.set_check_only(change.action == PolicyAction::kCheckOnly);
    PolicyReply reply;
    ISTHMUS_TRY_VOID(
        call([&](auto* context) { return stub_->ApplyPolicy(context, request, &reply); }));
    return take(reply);
  }

  Result<std::uint32_t> change_channel(const ChannelChange& change) override {
    SetChannelRequest request;
    request.set_qpn(change.qpn);
    request.set_all(change.all);
    request.set_kind(change.kind);
    SetChannelReply reply;
    ISTHMUS_TRY_VOID(
        call([&](auto* context) { return stub_->SetChannel(context, request, &reply); }));
    return reply.asked();
  }

  Result<void> capture(std::uint32_t qpn,
                       const std::function<Continue(PacketBatchReport)>& next) override {
    CaptureRequest request;
    request.set_qpn(qpn);
    return stream<PacketBatch>([&](auto* context) { return stub_->Capture(context, request); },
                               next);
  }

  void cancel() override {
    const std::lock_guard lock{mutex_};
    cancelled_ = true;
    if (streaming_ != nullptr) streaming_->TryCancel();
  }

 private:
  template <class Work>
  Result<void> call(Work work) {
    ::grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kCallPatience);
    const ::grpc::Status status = work(&context);
    if (!status.ok()) return std::unexpected(from_grpc(status));
    return {};
  }

  template <class Reply, class Start, class Next>
  Result<void> stream(Start start, const Next& next) {
    ::grpc::ClientContext context;
    {
      const std::lock_guard lock{mutex_};
      if (cancelled_) return {};
      streaming_ = &context;
    }
    bool wanted = true;
    auto reader = start(&context);
    Reply reply;
    while (wanted && reader->Read(&reply)) wanted = next(take(reply)) == Continue::kYes;
    if (!wanted) context.TryCancel();
    const ::grpc::Status status = reader->Finish();
    const std::lock_guard lock{mutex_};
    streaming_ = nullptr;
    if (status.ok() || !wanted || cancelled_) return {};
    return std::unexpected(from_grpc(status));
  }

  std::unique_ptr<Control::Stub> stub_;
  std::mutex mutex_;
  ::grpc::ClientContext* streaming_ = nullptr;  // Guarded by mutex_, as is the next.
  bool cancelled_ = false;
};

}  // namespace

Result<std::unique_ptr<ControlClient>> ControlClient::connect(const std::string& socket_path) {
  // gRPC says only "unavailable"; the kernel says whether it is absent, dead or not for us.
  ISTHMUS_TRY_VOID(os::unix_peer_process(socket_path, os::UnixSocketType::kStream));
  ::grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxReplyBytes);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  return std::make_unique<GrpcControlClient>(::grpc::CreateCustomChannel(
      "unix:" + socket_path, ::grpc::InsecureChannelCredentials(), arguments));
}

}  // namespace isthmus::control
