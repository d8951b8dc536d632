#include "cluster/etcd/etcd_watch.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/assert.h"
#include "cluster/etcd/etcd_status.h"

namespace isthmus::cluster {
namespace {

constexpr std::size_t kMaxQueuedEvents = 4096;
constexpr std::size_t kMaxEventsAtOnce = 1000;
constexpr std::chrono::milliseconds kPauseBeforeAgain{100};

Event event_of(etcdserverpb::Event& from) {
  etcdserverpb::KeyValue& entry = *from.mutable_kv();
  const bool is_erased = from.type() == etcdserverpb::Event::DELETE;
  return {.kind = is_erased ? EventKind::kErased : EventKind::kPut,
          .entry = {.key = std::move(*entry.mutable_key()),
                    .value = std::move(*entry.mutable_value()),
                    .changed = Revision{static_cast<std::uint64_t>(entry.mod_revision())},
                    .lease = LeaseId{static_cast<std::uint64_t>(entry.lease())}}};
}

}  // namespace

EtcdWatch::EtcdWatch(std::shared_ptr<::grpc::Channel> channel, std::string_view prefix,
                     Revision after, std::uint64_t deadline_ms)
    : channel_(std::move(channel)),
      prefix_(prefix),
      deadline_ms_(deadline_ms),
      // The history begins at revision 1, at which nothing happens.
      after_(std::max(after, Revision{1})),
      reader_([this] { run(); }) {}

EtcdWatch::~EtcdWatch() {
  cancel();
  reader_.join();
}

void EtcdWatch::cancel() {
  const std::lock_guard lock(mutex_);
  is_cancelled_ = true;
  if (running_ != nullptr) running_->TryCancel();
  changed_.notify_all();
}

Result<std::vector<Event>> EtcdWatch::next(std::uint64_t timeout_ms) {
  constexpr std::uint64_t kYearMs = 365ull * 24 * 3600 * 1000;  // A clock's range is finite.
  const std::chrono::milliseconds timeout(std::min(timeout_ms, kYearMs));
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [&] { return is_cancelled_ || error_ || !ready_.empty(); });
  if (is_cancelled_) return fail(ErrorCode::kClosed, "the watch was cancelled");
  std::vector<Event> events;
  while (!ready_.empty() && events.size() < kMaxEventsAtOnce) {
    ready_count_ -= ready_.front().size();
    std::ranges::move(ready_.front(), std::back_inserter(events));
    ready_.pop_front();
  }
  changed_.notify_all();
  if (events.empty() && error_) return std::unexpected(*error_);
  return events;
}

void EtcdWatch::run() {
  while (read_stream() == Verdict::kAgain) {
    partial_.clear();  // It comes again: after_ is before it.
    std::unique_lock lock(mutex_);
    if (changed_.wait_for(lock, kPauseBeforeAgain, [&] { return is_cancelled_; })) return;
  }
}

EtcdWatch::Verdict EtcdWatch::judge(Error error) {
  const std::lock_guard lock(mutex_);
  if (is_cancelled_) return Verdict::kEnd;
  if (error.code == ErrorCode::kUnreachable || error.code == ErrorCode::kIo ||
      error.code == ErrorCode::kNoMemory) {
    return Verdict::kAgain;
  }
  error_ = std::move(error);
  changed_.notify_all();
  return Verdict::kEnd;
}

// While it lives, cancel() reaches this call; then the one around it again.
class EtcdWatch::Running {
 public:
  Running(EtcdWatch& watch, ::grpc::ClientContext& context) : watch_(watch) {
    const std::lock_guard lock(watch_.mutex_);
    outer_ = std::exchange(watch_.running_, &context);
    if (watch_.is_cancelled_) context.TryCancel();
  }
  ~Running() {
    const std::lock_guard lock(watch_.mutex_);
    watch_.running_ = outer_;
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

 private:
  EtcdWatch& watch_;
  ::grpc::ClientContext* outer_;
};

Result<void> EtcdWatch::check_history() {
  // etcd lets a watch begin at the very revision up to which it has forgotten, and then shows a
  // value of that revision, but not an erasure. Reading at the revision before is refused.
  ::grpc::ClientContext context;
  const Running running(*this, context);
  context.set_wait_for_ready(true);
  const gpr_timespec patience =
      gpr_time_from_millis(static_cast<std::int64_t>(deadline_ms_), GPR_TIMESPAN);
  context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), patience));
  etcdserverpb::RangeRequest request;
  request.set_key(std::string(1, '\0'));
  request.set_revision(static_cast<std::int64_t>(after_.number));
  request.set_count_only(true);
  etcdserverpb::RangeResponse response;
  const auto status = etcdserverpb::KV::NewStub(channel_)->Range(&context, request, &response);
  if (status.ok()) return {};
  // A revision that is not reached yet has not been forgotten either.
  Error error = etcd_failure(status).error();
  if (error.code == ErrorCode::kInvalid) return {};
  return std::unexpected(std::move(error));
}

EtcdWatch::Verdict EtcdWatch::read_stream() {
  ::grpc::ClientContext context;
  context.set_wait_for_ready(true);
  // An etcd cut off from its majority then ends the stream, instead of staying silent.
  context.AddMetadata("hasleader", "true");
  const Running running(*this, context);
  const auto stub = etcdserverpb::Watch::NewStub(channel_);
  const auto stream = stub->Watch(&context);
  etcdserverpb::WatchRequest request;
  etcdserverpb::WatchCreateRequest& create = *request.mutable_create_request();
  const std::string end = end_of_prefix(prefix_);
  create.set_key(prefix_.empty() ? std::string(1, '\0') : prefix_);
  create.set_range_end(end.empty() ? std::string(1, '\0') : end);
  create.set_start_revision(static_cast<std::int64_t>(after_.number + 1));
  create.set_progress_notify(true);
  create.set_fragment(true);
  stream->Write(request);

  etcdserverpb::WatchResponse response;
  std::optional<Verdict> verdict;
  while (!verdict && stream->Read(&response)) verdict = take(response);
  if (verdict) context.TryCancel();
  const ::grpc::Status status = stream->Finish();
  if (verdict) return *verdict;
  if (status.ok()) return Verdict::kAgain;
  return judge(etcd_failure(status).error());
}

// Nothing: read on.
std::optional<EtcdWatch::Verdict> EtcdWatch::take(etcdserverpb::WatchResponse& response) {
  if (response.compact_revision() != 0) {
    return judge(fail(ErrorCode::kStale,
                      "compacted: changes after revision %llu are forgotten up to %lld; list again",
                      static_cast<unsigned long long>(after_.number),
                      static_cast<long long>(response.compact_revision()))
                     .error());
  }
  if (response.canceled()) return Verdict::kAgain;  // For a reason that passes: no leader.
  if (response.created()) {
    auto checked = check_history();
    if (checked) return std::nullopt;
    return judge(std::move(checked.error()));
  }
  for (auto& event : *response.mutable_events()) partial_.push_back(event_of(event));
  deliver(!response.fragment());
  if (response.events().empty() && !response.fragment()) {
    // Progress: nothing of ours happened up to here.
    const auto reached = static_cast<std::uint64_t>(response.header().revision());
    after_ = std::max(after_, Revision{reached});
  }
  return std::nullopt;
}

void EtcdWatch::deliver(bool is_whole_answer) {
  auto begin = partial_.begin();
  while (begin != partial_.end()) {
    const Revision at = begin->entry.changed;
    const auto end = std::find_if(begin, partial_.end(),
                                  [&](const Event& event) { return event.entry.changed != at; });
    if (end == partial_.end() && !is_whole_answer) break;
    std::vector<Event> events(std::make_move_iterator(begin), std::make_move_iterator(end));
    begin = end;
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return is_cancelled_ || ready_count_ < kMaxQueuedEvents; });
    if (is_cancelled_) break;
    ready_count_ += events.size();
    ready_.push_back(std::move(events));
    after_ = at;
    changed_.notify_all();
  }
  partial_.erase(partial_.begin(), begin);
}

}  // namespace isthmus::cluster
