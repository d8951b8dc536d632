#include "farmem/registry/node_registration.h"

#include <array>

#include "base/log.h"
#include "os/clock.h"
#include "os/event_fd.h"
#include "os/poll.h"
#include "os/signal_block.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint64_t kKeepsOfLease = 3;
// Programs that come and go do not make the directory busy.
constexpr std::uint64_t kSettleNs = 100 * os::kNsPerMs;

}  // namespace

Result<std::unique_ptr<NodeRegistration>> NodeRegistration::start(RegisteredNode node,
                                                                  OpenDirectory open,
                                                                  RegistrationTimes times) {
  ISTHMUS_TRY_VOID(check_node_name(node.name));
  std::unique_ptr<NodeRegistration> made{
      new NodeRegistration(std::move(node), std::move(open), times)};
  made->wake_ = ISTHMUS_TRY(os::create_event_fd());
  const os::SignalBlock block;  // A thread starts with the signal mask of its parent.
  made->thread_ = std::thread([registration = made.get()] { registration->run(); });
  return made;
}

NodeRegistration::~NodeRegistration() {
  if (!thread_.joinable()) return;
  stopping_ = true;
  os::signal(wake_.get());
  thread_.join();
}

void NodeRegistration::run() {
  const std::array<int, 2> fds{wake_.get(), node_.changed_fd};
  while (!stopping_) {
    const Result<void> done = step();
    note(done);
    // It may come back as another one, where a lease of the first is nobody's or somebody else's.
    if (!done && done.error().code != ErrorCode::kBusy) forget_directory();
    if (os::wait_readable(fds, times_.look_ms * os::kNsPerMs) == 0) continue;
    os::wait_readable(std::span(fds).first(1), kSettleNs);
    os::drain(node_.changed_fd);
  }
  if (directory_ && lease_.number != 0) (void)directory_->revoke(lease_);
}

Result<void> NodeRegistration::step() {
  if (!directory_) directory_ = ISTHMUS_TRY(open_());
  ISTHMUS_TRY_VOID(keep_lease());
  const auto drain = directory_->get(std::string(kDrainKeys) + node_.name);
  if (!drain && drain.error().code != ErrorCode::kNotFound) {
    return std::unexpected(drain.error());
  }
  node_.set_draining(drain.has_value());
  return publish();
}

void NodeRegistration::forget_directory() {
  directory_.reset();
  lease_ = {};
  published_.clear();
}

Result<void> NodeRegistration::keep_lease() {
  const std::uint64_t now = os::now_ns();
  if (lease_.number != 0) {
    if (now - kept_ns_ < times_.lease_ms * os::kNsPerMs / kKeepsOfLease) return {};
    const auto kept = directory_->keep_alive(lease_);
    if (kept) {
      kept_ns_ = now;
      return {};
    }
    if (kept.error().code != ErrorCode::kNotFound) return kept;
    lease_ = {};  // The directory was away for too long, and the entry is gone.
  }
  lease_ = ISTHMUS_TRY(directory_->grant(times_.lease_ms)).id;
  kept_ns_ = now;
  published_.clear();
  return {};
}

Result<void> NodeRegistration::publish() {
  const MemoryNodeFacts facts = node_.facts();
  const MemoryNodeEntry entry{
      .name = node_.name,
      .address = facts.address,
      .port = facts.port,
      .bytes = facts.bytes,
      .free_bytes = facts.free_bytes,
      .state = facts.draining ? MemoryNodeState::kDraining : MemoryNodeState::kServing,
      .version = node_.version};
  const std::string value = encode_node_entry(entry);
  if (value == published_) return {};
  const std::string key = std::string(kNodeKeys) + node_.name;
  cluster::Expected expected = cluster::Expected::absent();
  const auto present = directory_->get(key);
  if (present) {
    const auto other = decode_node_entry(node_.name, present->value);
    // At our address: an earlier life of ours, whose lease has not ended yet.
    const bool ours = present->lease == lease_ || !other ||
                      (other->address == entry.address && other->port == entry.port);
    if (!ours) {
      return fail(ErrorCode::kBusy,
                  "the directory has another memory node named %s, at %s port %u; start this one "
                  "with another --name",
                  node_.name.c_str(), other->address.c_str(), other->port);
    }
    expected = cluster::Expected::unchanged_since(present->changed);
  } else if (present.error().code != ErrorCode::kNotFound) {
    return std::unexpected(present.error());
  }
  ISTHMUS_TRY(directory_->put(key, value, {.expected = expected, .lease = lease_}));
  published_ = value;
  return {};
}

// The same complaint once.
void NodeRegistration::note(const Result<void>& result) {
  if (result) {
    if (!complaint_.empty()) ISTHMUS_LOG(kInfo, "the directory has this memory node again");
    complaint_.clear();
    return;
  }
  if (result.error().message == complaint_) return;
  complaint_ = result.error().message;
  ISTHMUS_LOG(kWarning, "%s; memory is served all the same", complaint_.c_str());
}

}  // namespace isthmus::farmem
