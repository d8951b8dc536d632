// A daemon that does what a test says: the other end of a Session's link, for tests alone.
//
// It answers every request with success, gives out handles from 1, and remembers what was asked.
// The test sends events into a channel, and kills the daemon by destroying it.
//
// Threading: one thread of its own answers; the test calls from another. The lock guards `asked`,
// `channels` and the answers to come.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "attach/cm_protocol.h"
#include "os/event_fd.h"
#include "os/poll.h"
#include "os/unix_socket.h"
#include "rdmacm/session.h"

namespace isthmus::rdmacm {

class ScriptedDaemon {
 public:
  ScriptedDaemon() : stop_(os::create_event_fd().value()) {
    auto [client, server] = os::unix_socket_pair().value();
    client_ = std::move(client);
    server_ = std::move(server);
    thread_ = std::thread([this] { serve(); });
  }
  ~ScriptedDaemon() {
    os::signal(stop_.get());
    thread_.join();
  }
  ScriptedDaemon(const ScriptedDaemon&) = delete;
  ScriptedDaemon& operator=(const ScriptedDaemon&) = delete;

  // The end for the Session; once.
  std::unique_ptr<DaemonLink> take_link() {
    return std::make_unique<DaemonLink>(std::move(client_));
  }

  // The next request of that command is answered with this errno value.
  void refuse(attach::CmCommand command, int error) {
    std::lock_guard lock(mutex_);
    refusals_[command] = error;
  }

  void send(std::uint32_t channel, const attach::CmEvent& event) {
    std::lock_guard lock(mutex_);
    ASSERT_TRUE(os::send_message(channels_.at(channel), attach::bytes_of(event), {}));
  }

  // The requests of that command so far.
  std::vector<attach::CmRequest> asked(attach::CmCommand command) {
    std::lock_guard lock(mutex_);
    std::vector<attach::CmRequest> found;
    for (const auto& request : asked_) {
      if (attach::header_of(request).command == command) found.push_back(request);
    }
    return found;
  }

  // What bind, resolve and listen answer.
  attach::CmRoute route;

 private:
  void serve() {
    for (;;) {
      const std::array<int, 2> both{server_.get(), stop_.get()};
      const auto ready = os::wait_readable(both, os::kWaitForEver);
      if ((ready & 2u) != 0) break;
      std::array<std::byte, attach::kCmMaxMessageBytes> buffer;
      auto message = os::receive_message(server_, buffer);
      if (!message) break;
      const auto request = attach::decode_cm_request(std::span{buffer}.first(message->bytes));
      ASSERT_TRUE(request) << request.error().message;
      std::lock_guard lock(mutex_);
      asked_.push_back(*request);
      answer(attach::header_of(*request), message->fds);
    }
    std::lock_guard lock(mutex_);
    server_.reset();
    channels_.clear();
  }

  template <class T>
  void reply(const attach::CmRequestHeader& to, T message) {
    message.header.command = to.command;
    message.header.sequence = to.sequence;
    ASSERT_TRUE(os::send_message(server_, attach::bytes_of(message), {}));
  }

  void answer(const attach::CmRequestHeader& to, std::vector<os::Fd>& fds) {
    using enum attach::CmCommand;
    if (const auto refusal = refusals_.find(to.command); refusal != refusals_.end()) {
      attach::CmPlainReply no;
      no.header.error = refusal->second;
      refusals_.erase(refusal);
      return reply(to, no);
    }
    switch (to.command) {
      case kCreateChannel:
        ASSERT_EQ(fds.size(), 1u);
        channels_[++last_handle_] = std::move(fds[0]);
        return reply(to, attach::CmHandleReply{.header = {}, .handle = last_handle_});
      case kDestroyChannel:
        channels_.erase(to.id);
        return reply(to, attach::CmPlainReply{});
      case kCreateId:
      case kJoinMulticast:
      case kRestoreId:
        return reply(to, attach::CmHandleReply{.header = {}, .handle = ++last_handle_});
      case kDestroyId:
      case kLeaveMulticast:
      case kMigrateId:
        return reply(to, attach::CmCountReply{});
      case kBindAddress:
      case kResolveAddress:
      case kResolveRoute:
      case kListen:
      case kQuery:
        return reply(to, attach::CmRouteReply{.header = {}, .route = route});
      case kInitQpAttributes:
        return reply(to, attach::CmQpAttributesReply{});
      default:
        return reply(to, attach::CmPlainReply{});
    }
  }

  os::Fd client_;
  os::Fd server_;
  const os::Fd stop_;
  std::mutex mutex_;
  std::map<std::uint32_t, os::Fd> channels_;
  std::vector<attach::CmRequest> asked_;
  std::map<attach::CmCommand, int> refusals_;
  std::uint32_t last_handle_ = 0;
  std::thread thread_;
};

}  // namespace isthmus::rdmacm
