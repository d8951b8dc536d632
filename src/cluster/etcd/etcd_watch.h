// EtcdWatch: a watch as a stream of etcd, begun again from its revision whenever it breaks.
//
// A thread of its own reads the stream, because gRPC's reads have no time-out; it stops reading
// when kMaxQueuedEvents wait for next(), and then etcd waits.
//
// Threading: any thread may call it.
#pragma once

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "cluster/directory/directory.h"
#include "etcd.grpc.pb.h"

namespace isthmus::cluster {

class EtcdWatch final : public Watch {
 public:
  EtcdWatch(std::shared_ptr<::grpc::Channel> channel, std::string_view prefix, Revision after,
            std::uint64_t deadline_ms);
  ~EtcdWatch() override;

  Result<std::vector<Event>> next(std::uint64_t timeout_ms) override;
  void cancel() override;

 private:
  enum class Verdict : std::uint8_t {
    kAgain,  // The stream broke; begin it again.
    kEnd,    // Cancelled, or an error that stays; nothing more comes.
  };

  class Running;

  void run();
  Verdict read_stream();
  // kStale: what comes after after_ is forgotten, or part of it may be.
  Result<void> check_history();
  std::optional<Verdict> take(etcdserverpb::WatchResponse& response);
  // The last revision in `partial_` may be incomplete unless this is the end of an answer.
  void deliver(bool is_whole_answer);
  Verdict judge(Error error);

  const std::shared_ptr<::grpc::Channel> channel_;
  const std::string prefix_;
  const std::uint64_t deadline_ms_;

  // The reading thread's.
  Revision after_;               // Delivered up to here.
  std::vector<Event> partial_;  // Read, not delivered yet.

  std::mutex mutex_;  // Of all below.
  std::condition_variable changed_;
  std::deque<std::vector<Event>> ready_;  // One revision each.
  std::size_t ready_count_ = 0;           // Events in it.
  std::optional<Error> error_;
  bool is_cancelled_ = false;
  ::grpc::ClientContext* running_ = nullptr;  // Of the call under way, for cancel().

  std::thread reader_;  // The last member: it uses the others.
};

}  // namespace isthmus::cluster
