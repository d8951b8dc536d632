#include "control/grpc/control_server.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <optional>
#include <utility>

#include "control.grpc.pb.h"
#include "control/grpc/status_code.h"
#include "os/file_mode.h"

namespace isthmus::control {
namespace {

constexpr std::size_t kMaxUnixPathBytes = 107;  // sun_path, with its zero.
constexpr std::uint32_t kMinWatchMs = 100;
constexpr std::uint32_t kMaxWatchMs = 60'000;
constexpr std::size_t kMaxQueuedPackets = 16 * 1024;    // 64 MiB of one slow reader at most.
constexpr std::size_t kMaxBatchPackets = 256;           // A message stays below gRPC's 4 MiB.
constexpr std::chrono::milliseconds kCancelCheck{100};  // gRPC tells of a hang-up only if asked.

void put(const TrafficReport& from, Traffic& to) {
  to.set_messages_sent(from.messages_sent);
  to.set_messages_received(from.messages_received);
  to.set_bytes_sent(from.bytes_sent);
  to.set_bytes_received(from.bytes_received);
  to.set_packets_sent(from.packets_sent);
  to.set_packets_received(from.packets_received);
  to.set_retries(from.retries);
  to.set_drops(from.drops);
}

void put(const QueuePairReport& from, QueuePair& to) {
  to.set_qpn(from.qpn);
  to.set_type(from.type);
  to.set_state(from.state);
  to.set_local_gid(from.local_gid);
  to.set_remote_gid(from.remote_gid);
  to.set_dest_qpn(from.dest_qpn);
  to.set_channel(from.channel);
  to.set_access(from.access);
  put(from.traffic, *to.mutable_traffic());
}

void put(const MemoryRegionReport& from, MemoryRegion& to) {
  to.set_key(from.key);
  to.set_iova(from.iova);
  to.set_length(from.length);
  to.set_access(from.access);
  to.set_window(from.window);
}

void put(const FunctionReport& from, Function& to) {
  to.set_index(from.index);
  to.set_generation(from.generation);
  to.set_process_id(from.process_id);
  to.set_program(from.program);
  to.set_label(from.label);
  to.set_queue_pair_count(from.queue_pair_count);
  to.set_memory_region_count(from.memory_region_count);
  to.set_completion_queue_count(from.completion_queue_count);
  to.set_registered_bytes(from.registered_bytes);
  put(from.traffic, *to.mutable_traffic());
  for (const auto& qp : from.queue_pairs) put(qp, *to.add_queue_pairs());
  for (const auto& region : from.memory_regions) put(region, *to.add_memory_regions());
}

void put(const StatusReport& from, StatusReply& to) {
  to.set_label(from.label);
  to.set_version(from.version);
  to.set_process_id(from.process_id);
  to.set_private_daemon(from.private_daemon);
  to.set_taken_ns(from.taken_ns);
  to.set_started_ns(from.started_ns);
  to.set_socket(from.socket);
  for (const auto& address : from.addresses) to.add_addresses(address);
  for (const auto& function : from.functions) put(function, *to.add_functions());
  for (const auto& counter : from.counters) {
    auto* added = to.add_counters();
    added->set_name(counter.name);
    added->set_value(counter.value);
  }
}

void put(const PolicyReport& from, PolicyReply& to) {
  to.set_document(from.document);
  to.set_name(from.name);
  for (const auto& connection : from.connections) {
    auto* added = to.add_connections();
    added->set_qpn(connection.qpn);
    added->set_process_id(connection.process_id);
    added->set_program(connection.program);
    added->set_from(connection.from);
    added->set_to(connection.to);
    added->set_port(connection.port);
    added->set_transport(connection.transport);
    added->set_decision(connection.decision);
    added->set_rights(connection.rights);
    added->set_rule(connection.rule);
    added->set_changed(connection.changed);
  }
}

void put(const PacketReport& from, Packet& to) {
  to.set_timestamp_ns(from.timestamp_ns);
  to.set_incoming(from.incoming);
  to.set_memory_channel(from.memory_channel);
  to.set_source(from.source.bytes().data(), from.source.bytes().size());
  to.set_destination(from.destination.bytes().data(), from.destination.bytes().size());
  to.set_source_port(from.source_port);
  to.set_ip_id(from.ip_id);
  to.set_original_bytes(from.original_bytes);
  to.set_payload(from.payload.data(), from.payload.size());
  to.set_process_id(from.process_id);
  to.set_local_qpn(from.local_qpn);
}

// What calls, posted functions and the server share. Outlives all three.
struct Shared {
  std::mutex mutex;
  std::condition_variable changed;
  bool stopping = false;              // Guarded by mutex.
  ControlBackend* backend = nullptr;  // The loop's alone; null once the server is destroyed.
};

// The packets of one capture, from the loop to the thread that sends them.
class QueueSink final : public PacketSink {
 public:
  explicit QueueSink(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}

  void push(PacketBatchReport batch) override {
    const std::lock_guard lock{shared_->mutex};
    ring_dropped_ = batch.dropped;
    for (auto& packet : batch.packets) {
      if (queue_.size() == kMaxQueuedPackets) {
        ++queue_dropped_;
      } else {
        queue_.push_back(std::move(packet));
      }
    }
    shared_->changed.notify_all();
  }

  // With the mutex held.
  bool empty() const { return queue_.empty(); }
  void take(PacketBatch& to) {
    for (std::size_t i = 0; i < kMaxBatchPackets && !queue_.empty(); ++i) {
      put(queue_.front(), *to.add_packets());
      queue_.pop_front();
    }
    to.set_dropped(ring_dropped_ + queue_dropped_);
  }

 private:
  std::shared_ptr<Shared> shared_;
  std::deque<PacketReport> queue_;
  std::uint64_t ring_dropped_ = 0;
  std::uint64_t queue_dropped_ = 0;
};

class Service final : public Control::Service {
 public:
  Service(std::shared_ptr<Shared> shared, PostToLoop post)
      : shared_(std::move(shared)), post_(std::move(post)) {}

  ::grpc::Status GetVersion(::grpc::ServerContext*, const VersionRequest*,
                            VersionReply* reply) override {
    const auto version = on_loop<VersionReport>(
        [](ControlBackend& backend) -> Result<VersionReport> { return backend.version(); });
    if (!version) return to_grpc(version.error());
    reply->set_version(version->version);
    reply->set_process_id(version->process_id);
    return ::grpc::Status::OK;
  }

  ::grpc::Status GetStatus(::grpc::ServerContext*, const StatusRequest* request,
                           StatusReply* reply) override {
    return fill(*request, *reply);
  }

  ::grpc::Status WatchStatus(::grpc::ServerContext* context, const WatchStatusRequest* request,
                             ::grpc::ServerWriter<StatusReply>* writer) override {
    const std::chrono::milliseconds interval{
        std::clamp(request->interval_ms(), kMinWatchMs, kMaxWatchMs)};
    for (;;) {
      StatusReply reply;
      if (auto status = fill(request->status(), reply); !status.ok()) return status;
      if (!writer->Write(reply)) return ::grpc::Status::OK;
      for (auto waited = interval.zero(); waited < interval; waited += kCancelCheck) {
        std::unique_lock lock{shared_->mutex};
        shared_->changed.wait_for(lock, std::min(kCancelCheck, interval - waited),
                                  [&] { return shared_->stopping; });
        if (shared_->stopping || context->IsCancelled()) return ::grpc::Status::OK;
      }
    }
  }

  ::grpc::Status GetPolicy(::grpc::ServerContext*, const PolicyRequest*,
                           PolicyReply* reply) override {
    const auto policy = on_loop<PolicyReport>(
        [](ControlBackend& backend) -> Result<PolicyReport> { return backend.policy(); });
    if (!policy) return to_grpc(policy.error());
    put(*policy, *reply);
    return ::grpc::Status::OK;
  }

  ::grpc::Status ApplyPolicy(::grpc::ServerContext*, const ApplyPolicyRequest* request,
                             PolicyReply* reply) override {
    const PolicyChange change{
        .document = request->document(),
        .name = request->name(),
        .action = request->check_only() ? PolicyAction::kCheckOnly : PolicyAction::kApply};
    const auto policy = on_loop<PolicyReport>(
        [change](ControlBackend& backend) { return backend.change_policy(change); });
    if (!policy) return to_grpc(policy.error());
    put(*policy, *reply);
    return ::grpc::Status::OK;
  }

  ::grpc::Status SetChannel(::grpc::ServerContext*, const SetChannelRequest* request,
                            SetChannelReply* reply) override {
    const ChannelChange change{
        .qpn = request->qpn(), .all = request->all(), .kind = request->kind()};
    const auto asked = on_loop<std::uint32_t>(
        [change](ControlBackend& backend) { return backend.change_channel(change); });
    if (!asked) return to_grpc(asked.error());
    reply->set_asked(*asked);
    return ::grpc::Status::OK;
  }

  ::grpc::Status Capture(::grpc::ServerContext* context, const CaptureRequest* request,
                         ::grpc::ServerWriter<PacketBatch>* writer) override {
    auto sink = std::make_shared<QueueSink>(shared_);
    const auto started =
        on_loop<bool>([qpn = request->qpn(), weak = std::weak_ptr<PacketSink>(sink)](
                          ControlBackend& backend) -> Result<bool> {
          ISTHMUS_TRY_VOID(backend.capture(qpn, weak));
          return true;
        });
    if (!started) return to_grpc(started.error());
    // The caller learns from this that the capture has begun.
    if (!writer->Write(PacketBatch{})) return ::grpc::Status::OK;
    for (;;) {
      PacketBatch batch;
      {
        std::unique_lock lock{shared_->mutex};
        shared_->changed.wait_for(lock, kCancelCheck,
                                  [&] { return shared_->stopping || !sink->empty(); });
        if (shared_->stopping || context->IsCancelled()) return ::grpc::Status::OK;
        sink->take(batch);
      }
      if (batch.packets_size() != 0 && !writer->Write(batch)) return ::grpc::Status::OK;
    }
  }

 private:
  // Runs `work` on the loop and waits for its result.
  template <class T>
  Result<T> on_loop(std::function<Result<T>(ControlBackend&)> work) {
    auto answer = std::make_shared<std::optional<Result<T>>>();  // Guarded by the mutex.
    const bool posted = post_([shared = shared_, answer, work = std::move(work)] {
      if (shared->backend == nullptr) return;
      Result<T> result = work(*shared->backend);
      const std::lock_guard lock{shared->mutex};
      *answer = std::move(result);
      shared->changed.notify_all();
    });
    if (!posted) return fail(ErrorCode::kClosed, "isthmusd is ending");
    std::unique_lock lock{shared_->mutex};
    shared_->changed.wait_for(lock, kLoopPatience,
                              [&] { return answer->has_value() || shared_->stopping; });
    if (*answer) return std::move(**answer);
    if (shared_->stopping) return fail(ErrorCode::kClosed, "isthmusd is ending");
    return fail(ErrorCode::kTimedOut, "isthmusd's loop did not answer in %lld seconds",
                static_cast<long long>(kLoopPatience.count()));
  }

  ::grpc::Status fill(const StatusRequest& request, StatusReply& reply) {
    const StatusDetail detail{.queue_pairs = request.queue_pairs(),
                              .memory_regions = request.memory_regions()};
    const auto status =
        on_loop<StatusReport>([detail](ControlBackend& backend) -> Result<StatusReport> {
          return backend.status(detail);
        });
    if (!status) return to_grpc(status.error());
    put(*status, reply);
    return ::grpc::Status::OK;
  }

  std::shared_ptr<Shared> shared_;
  PostToLoop post_;
};

class GrpcControlServer final : public ControlServer {
 public:
  GrpcControlServer(std::shared_ptr<Shared> shared, PostToLoop post)
      : shared_(shared), service_(std::move(shared), std::move(post)) {}

  ~GrpcControlServer() override {
    shared_->backend = nullptr;
    {
      const std::lock_guard lock{shared_->mutex};
      shared_->stopping = true;
      shared_->changed.notify_all();
    }
    if (server_) server_->Shutdown(std::chrono::system_clock::time_point{});  // Calls end now.
  }

  Result<void> start(const std::string& socket_path) {
    ::grpc::ServerBuilder builder;
    // The daemon needs few threads for its operator; gRPC would start one set for each processor.
    builder.SetSyncServerOption(::grpc::ServerBuilder::NUM_CQS, 1);
    builder.SetSyncServerOption(::grpc::ServerBuilder::MIN_POLLERS, 1);
    builder.SetSyncServerOption(::grpc::ServerBuilder::MAX_POLLERS, 2);
    int bound = 0;
    builder.AddListeningPort("unix:" + socket_path, ::grpc::InsecureServerCredentials(), &bound);
    builder.RegisterService(&service_);
    const os::PrivateFilesScope only_for_us;  // The mode of the socket that bind() makes.
    server_ = builder.BuildAndStart();
    if (!server_ || bound == 0) {
      return fail(ErrorCode::kAddressInUse,
                  "cannot serve control calls at %s: is its folder writable?", socket_path.c_str());
    }
    return {};
  }

 private:
  std::shared_ptr<Shared> shared_;
  Service service_;
  std::unique_ptr<::grpc::Server> server_;
};

}  // namespace

Result<std::unique_ptr<ControlServer>> ControlServer::create(const std::string& socket_path,
                                                             PostToLoop post,
                                                             ControlBackend& backend) {
  if (socket_path.size() > kMaxUnixPathBytes) {
    return fail(ErrorCode::kInvalid, "the socket path %s is longer than %zu bytes",
                socket_path.c_str(), kMaxUnixPathBytes);
  }
  auto shared = std::make_shared<Shared>();
  shared->backend = &backend;
  auto server = std::make_unique<GrpcControlServer>(std::move(shared), std::move(post));
  ISTHMUS_TRY_VOID(server->start(socket_path));
  return server;
}

}  // namespace isthmus::control
