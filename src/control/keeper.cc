#include "control/keeper.h"

#include <array>

#include "base/log.h"
#include "os/lock_file.h"
#include "os/poll.h"
#include "os/process.h"
#include "os/unix_socket.h"

namespace isthmus::control {
namespace {

std::vector<int> numbers_of(const std::vector<os::Fd>& fds) {
  std::vector<int> numbers;
  for (const os::Fd& fd : fds) numbers.push_back(fd.get());
  return numbers;
}

std::span<const std::byte> bytes_of(const KeeperRecord& record) {
  return std::as_bytes(std::span(&record, 1));
}

}  // namespace

Keeper::~Keeper() {
  // In this order: a daemon that does not find us any more may use the port itself.
  functions_.clear();
  places_.clear();
  if (listener_) os::remove_file(socket_path_);
}

Result<void> Keeper::start() {
  os::remove_file(socket_path_);  // The daemon that started us holds the lock of the path.
  listener_ = ISTHMUS_TRY(os::listen_unix(socket_path_, os::UnixAccess::kOwner));
  ISTHMUS_TRY_VOID(loop_.watch(listener_.get(), [this] { on_connection(); }));
  ISTHMUS_TRY_VOID(os::send_message(daemon_, bytes_of({.kind = KeeperRecordKind::kEnd}), {}));
  return loop_.watch(daemon_.get(), [this] { on_message(); });
}

void Keeper::on_connection() {
  auto accepted = os::accept_unix(listener_);
  if (!accepted) return;
  // Whoever connects holds the lock of the path, so the earlier daemon is gone. What it said last
  // counts all the same.
  for (int fd = daemon_.get(); daemon_ && os::wait_readable({&fd, 1}, 0);) on_message();
  if (daemon_) loop_.unwatch(daemon_.get());
  daemon_ = std::move(*accepted);
  if (!loop_.watch(daemon_.get(), [this] { on_message(); })) lose_daemon();
}

void Keeper::on_message() {
  std::array<std::byte, sizeof(KeeperRecord)> buffer;
  auto received = os::receive_message(daemon_, buffer);
  if (!received && received.error().code == ErrorCode::kAgain) return;
  if (!received) return lose_daemon();
  const auto record =
      decode_keeper_record(std::span(buffer).first(received->bytes), received->fds.size());
  if (!record) {
    ISTHMUS_LOG(kError, "%s", record.error().message.c_str());
    return lose_daemon();
  }
  switch (record->kind) {
    case KeeperRecordKind::kForget: return forget(record->index);
    case KeeperRecordKind::kForgetPlace:
      std::erase_if(places_, [&](const Kept& kept) {
        return kept.record.namespace_id == record->namespace_id;
      });
      return;
    case KeeperRecordKind::kFinish: return loop_.stop();
    case KeeperRecordKind::kTakeOver: return hand_over();
    case KeeperRecordKind::kEnd: return;
    case KeeperRecordKind::kMember:
    case KeeperRecordKind::kFunction:
    case KeeperRecordKind::kNamespace: return keep(*record, std::move(received->fds));
  }
}

void Keeper::keep(const KeeperRecord& record, std::vector<os::Fd> fds) {
  if (record.kind != KeeperRecordKind::kFunction) {
    places_.push_back({.record = record, .fds = std::move(fds), .process = {}});
    return;
  }
  forget(record.index);
  Kept& kept = functions_[record.index];
  kept.record = record;
  kept.fds = std::move(fds);
  auto process = os::watch_process(record.process_id);
  if (!process) return;  // Ended, or in another process namespace.
  kept.process = std::move(*process);
  const auto watched =
      loop_.watch(kept.process.get(), [this, index = record.index, fd = kept.process.get()] {
        loop_.unwatch(fd);
        functions_.at(index).process.reset();
        end_if_useless();
      });
  if (!watched) kept.process.reset();
}

void Keeper::forget(std::uint32_t function) {
  const auto found = functions_.find(function);
  if (found == functions_.end()) return;
  if (found->second.process) loop_.unwatch(found->second.process.get());
  functions_.erase(found);
}

void Keeper::hand_over() {
  const auto send = [this](const KeeperRecord& record, const std::vector<os::Fd>& fds) {
    return os::send_message(daemon_, bytes_of(record), numbers_of(fds), os::Wait::kYes)
        .has_value();
  };
  bool alive = true;
  for (const Kept& kept : places_) alive = alive && send(kept.record, kept.fds);
  for (const auto& [index, kept] : functions_) alive = alive && send(kept.record, kept.fds);
  alive = alive && send({.kind = KeeperRecordKind::kEnd}, {});
  if (!alive) lose_daemon();
}

void Keeper::lose_daemon() {
  if (!daemon_) return;
  loop_.unwatch(daemon_.get());
  daemon_.reset();
  ISTHMUS_LOG(kWarning, "isthmusd is gone; its sockets are kept for the next one at this path");
  end_if_useless();
}

void Keeper::end_if_useless() {
  if (daemon_) return;
  for (const auto& [index, kept] : functions_) {
    if (kept.process) return;
  }
  loop_.stop();
}

}  // namespace isthmus::control
