#include "cluster/etcd/etcd_directory.h"

#include <grpcpp/grpcpp.h>

#include <utility>

#include "base/assert.h"
#include "cluster/etcd/etcd_status.h"
#include "cluster/etcd/etcd_watch.h"
#include "etcd.grpc.pb.h"

namespace isthmus::cluster {
namespace {

// Values of a megabyte are fine; a page of them is what one answer holds at most.
constexpr std::int64_t kPageEntries = 64;
constexpr int kMaxAnswerBytes = 128 << 20;
static_assert(kPageEntries * (kMaxValueBytes + kMaxKeyBytes) < kMaxAnswerBytes);

constexpr std::uint64_t kMaxDeadlineMs = 600'000;
constexpr std::uint64_t kMsPerSecond = 1000;

Entry entry_of(etcdserverpb::KeyValue& from) {
  return {.key = std::move(*from.mutable_key()),
          .value = std::move(*from.mutable_value()),
          .changed = Revision{static_cast<std::uint64_t>(from.mod_revision())},
          .lease = LeaseId{static_cast<std::uint64_t>(from.lease())}};
}

std::shared_ptr<::grpc::Channel> channel_to(const std::string& target) {
  ::grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxAnswerBytes);
  // An etcd that comes back is found within a second, not within gRPC's two minutes.
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 1000);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1000);
  // One that is frozen or cut off is noticed by a watch too. etcd refuses pings under 5 s apart.
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Proxies of the environment are for the web, and channels of one target are not to share fate.
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return ::grpc::CreateCustomChannel(target, ::grpc::InsecureChannelCredentials(), arguments);
}

class EtcdDirectory final : public Directory {
 public:
  explicit EtcdDirectory(const EtcdDirectoryOptions& options)
      : deadline_ms_(options.deadline_ms),
        channel_(channel_to(options.target)),
        keys_(etcdserverpb::KV::NewStub(channel_)),
        leases_(etcdserverpb::Lease::NewStub(channel_)) {}

  Result<Entry> get(std::string_view key) override;
  Result<Listing> list(std::string_view prefix) override;
  Result<Revision> commit(std::span<const Change> changes) override;
  Result<Lease> grant(std::uint64_t time_to_live_ms) override;
  Result<void> keep_alive(LeaseId lease) override;
  Result<void> revoke(LeaseId lease) override;
  Result<std::unique_ptr<Watch>> watch(std::string_view prefix, Revision after) override;
  Result<void> compact(Revision until) override;

 private:
  void limit(::grpc::ClientContext& context) const;
  Result<etcdserverpb::RangeResponse> range(const etcdserverpb::RangeRequest& request);

  const std::uint64_t deadline_ms_;
  const std::shared_ptr<::grpc::Channel> channel_;
  const std::unique_ptr<etcdserverpb::KV::Stub> keys_;
  const std::unique_ptr<etcdserverpb::Lease::Stub> leases_;
};

void EtcdDirectory::limit(::grpc::ClientContext& context) const {
  // gRPC connects only while a call waits: calls that failed at once while etcd is away would
  // never find it again.
  context.set_wait_for_ready(true);
  const auto ms = static_cast<std::int64_t>(deadline_ms_);
  context.set_deadline(
      gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_millis(ms, GPR_TIMESPAN)));
}

Result<etcdserverpb::RangeResponse> EtcdDirectory::range(
    const etcdserverpb::RangeRequest& request) {
  ::grpc::ClientContext context;
  limit(context);
  etcdserverpb::RangeResponse response;
  const ::grpc::Status status = keys_->Range(&context, request, &response);
  if (!status.ok()) return etcd_failure(status);
  return response;
}

Result<Entry> EtcdDirectory::get(std::string_view key) {
  ISTHMUS_TRY_VOID(check_key(key));
  etcdserverpb::RangeRequest request;
  request.set_key(std::string(key));
  auto response = ISTHMUS_TRY(range(request));
  if (response.kvs().empty()) return fail(ErrorCode::kNotFound, "no such key in the directory");
  return entry_of(*response.mutable_kvs(0));
}

Result<Listing> EtcdDirectory::list(std::string_view prefix) {
  const std::string end = end_of_prefix(prefix);
  etcdserverpb::RangeRequest request;
  request.set_key(prefix.empty() ? std::string(1, '\0') : std::string(prefix));
  request.set_range_end(end.empty() ? std::string(1, '\0') : end);
  request.set_limit(kPageEntries);
  Listing listing;
  for (;;) {
    auto response = ISTHMUS_TRY(range(request));
    // All pages are of the revision of the first.
    if (listing.at == Revision{}) {
      listing.at.number = static_cast<std::uint64_t>(response.header().revision());
      request.set_revision(response.header().revision());
    }
    for (auto& entry : *response.mutable_kvs()) listing.entries.push_back(entry_of(entry));
    if (!response.more() || listing.entries.empty()) return listing;
    request.set_key(listing.entries.back().key + '\0');
  }
}

Result<Revision> EtcdDirectory::commit(std::span<const Change> changes) {
  ISTHMUS_TRY_VOID(check_changes(changes));
  etcdserverpb::TxnRequest request;
  for (const Change& change : changes) {
    if (change.expected.is_condition()) {
      etcdserverpb::Compare& compare = *request.add_compare();
      compare.set_result(etcdserverpb::Compare::EQUAL);
      compare.set_target(etcdserverpb::Compare::MOD);
      compare.set_key(change.key);
      compare.set_mod_revision(static_cast<std::int64_t>(change.expected.changed().number));
    }
    if (change.kind == ChangeKind::kPut) {
      etcdserverpb::PutRequest& put = *request.add_success()->mutable_request_put();
      put.set_key(change.key);
      put.set_value(change.value);
      put.set_lease(static_cast<std::int64_t>(change.lease.number));
    } else if (change.kind == ChangeKind::kErase) {
      request.add_success()->mutable_request_delete_range()->set_key(change.key);
    }
  }
  ::grpc::ClientContext context;
  limit(context);
  etcdserverpb::TxnResponse response;
  const ::grpc::Status status = keys_->Txn(&context, request, &response);
  if (!status.ok()) return etcd_failure(status);
  if (!response.succeeded()) {
    return fail(ErrorCode::kStale, "a key is not at the revision expected; read it again");
  }
  return Revision{static_cast<std::uint64_t>(response.header().revision())};
}

Result<Lease> EtcdDirectory::grant(std::uint64_t time_to_live_ms) {
  ISTHMUS_TRY_VOID(check_time_to_live(time_to_live_ms));
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl(static_cast<std::int64_t>((time_to_live_ms + kMsPerSecond - 1) / kMsPerSecond));
  ::grpc::ClientContext context;
  limit(context);
  etcdserverpb::LeaseGrantResponse response;
  const ::grpc::Status status = leases_->LeaseGrant(&context, request, &response);
  if (!status.ok()) return etcd_failure(status);
  return Lease{.id = LeaseId{static_cast<std::uint64_t>(response.id())},
               .time_to_live_ms = static_cast<std::uint64_t>(response.ttl()) * kMsPerSecond};
}

Result<void> EtcdDirectory::keep_alive(LeaseId lease) {
  ::grpc::ClientContext context;
  limit(context);
  const auto stream = leases_->LeaseKeepAlive(&context);
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(static_cast<std::int64_t>(lease.number));
  etcdserverpb::LeaseKeepAliveResponse response;
  const bool is_answered = stream->Write(request) && stream->Read(&response);
  if (is_answered) context.TryCancel();  // One answer is all that was wanted.
  const ::grpc::Status status = stream->Finish();
  if (!is_answered) {
    if (!status.ok()) return etcd_failure(status);
    return fail(ErrorCode::kUnreachable, "etcd did not answer for a lease");
  }
  if (response.ttl() > 0) return {};
  return fail(ErrorCode::kNotFound, "the lease has ended; its keys are gone");
}

Result<void> EtcdDirectory::revoke(LeaseId lease) {
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(static_cast<std::int64_t>(lease.number));
  ::grpc::ClientContext context;
  limit(context);
  etcdserverpb::LeaseRevokeResponse response;
  const ::grpc::Status status = leases_->LeaseRevoke(&context, request, &response);
  if (!status.ok()) return etcd_failure(status);
  return {};
}

Result<std::unique_ptr<Watch>> EtcdDirectory::watch(std::string_view prefix, Revision after) {
  return std::make_unique<EtcdWatch>(channel_, prefix, after, deadline_ms_);
}

Result<void> EtcdDirectory::compact(Revision until) {
  etcdserverpb::CompactionRequest request;
  request.set_revision(static_cast<std::int64_t>(until.number));
  ::grpc::ClientContext context;
  limit(context);
  etcdserverpb::CompactionResponse response;
  const ::grpc::Status status = keys_->Compact(&context, request, &response);
  if (status.ok()) return {};
  auto failure = etcd_failure(status);
  if (failure.error().code == ErrorCode::kStale) return {};  // Forgotten already.
  return failure;
}

}  // namespace

Result<std::unique_ptr<Directory>> open_etcd_directory(const EtcdDirectoryOptions& options) {
  if (options.target.empty() || options.deadline_ms == 0 ||
      options.deadline_ms > kMaxDeadlineMs) {
    return fail(ErrorCode::kInvalid,
                "etcd wants a target such as localhost:2379 and a deadline of 1 to %llu ms",
                static_cast<unsigned long long>(kMaxDeadlineMs));
  }
  return std::make_unique<EtcdDirectory>(options);
}

}  // namespace isthmus::cluster
