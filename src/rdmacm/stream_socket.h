// StreamSocket: a stream rsocket. The rsocket protocol (StreamCore) on a QP, connected through the
// connection manager.
//
// Life:   fresh -> bound -> listening
//                       `-> connecting -> open -> over
//                listening -> (take_request) accepting -> open -> over
//
// Its descriptor is that of its own event channel. A socket that waits sleeps on two descriptors,
// the event channel and the completion channel; one thread of a socket does, the others wait for
// it to report news.
//
// Threading: any thread. One lock, held while working and never while waiting.
#pragma once

#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "rdmacm/identifier.h"
#include "rdmacm/session.h"
#include "rdmacm/socket.h"
#include "rdmacm/stream_core.h"

namespace isthmus::rdmacm {

class StreamSocket final : public Socket, private StreamPort {
 public:
  static Result<std::shared_ptr<StreamSocket>> create(Session& session, int domain);
  ~StreamSocket() override;

  int number() const override;
  Result<void> bind_to(const CmAddress& address) override;
  Result<void> start_listening(int backlog) override;
  Result<std::shared_ptr<Socket>> take_request(CmAddress& peer) override;
  Result<void> connect_to(const CmAddress& address) override;
  Result<void> shut_down(int how) override;
  void give_up() override;
  Result<std::size_t> receive(std::span<const iovec> into, int flags, CmAddress* from) override;
  Result<std::size_t> send(std::span<const iovec> data, int flags, const CmAddress* to) override;
  Result<CmAddress> local_address() override;
  Result<CmAddress> peer_address() override;
  Result<std::int64_t> map_memory(std::span<std::byte> memory, int protection,
                                  std::int64_t offset) override;
  Result<void> unmap_memory(std::span<std::byte> memory) override;
  Result<std::size_t> write_mapped(std::span<const std::byte> data, std::uint64_t offset,
                                   int flags) override;
  short ready_events(short events) override;
  void arm(std::vector<int>& descriptors) override;
  Result<void> set_option(int level, int name, std::span<const std::byte> value) override;
  Result<socklen_t> get_option(int level, int name, std::span<std::byte> value) override;

 private:
  enum class State : std::uint8_t {
    kFresh,
    kListening,
    kResolving,   // Address, then route.
    kConnecting,
    kAccepting,   // Our REP is out; the peer may write already.
    kOpen,        // And after, until the socket is given up.
    kFailed,      // Never became open; failure_ says why.
  };
  struct Mapping {
    std::span<std::byte> memory;
    ibv_mr* region = nullptr;
    std::int64_t offset = 0;
    std::optional<std::uint32_t> index;  // In the peer's list; none: not for the peer to write.
    bool announced = false;
  };
  using Lock = std::unique_lock<std::mutex>;

  StreamSocket(Session& session, int domain, Channel* channel)
      : Socket(domain, SOCK_STREAM), session_(session), channel_(channel) {}

  // StreamPort
  Result<void> write(const StreamWrite& write) override;
  Result<void> post_receive() override;

  // With the lock held.
  void progress();
  void poll_completions();
  void handle_events();
  void handle_event(const rdma_cm_event& event);
  void become_open(std::span<const std::byte> private_data);
  void fail_connection(int error);
  Result<void> make_identifier();
  Result<void> make_endpoint();
  Result<void> make_queues();
  Result<void> register_memory();
  Result<ibv_mr*> register_bytes(std::span<std::byte> bytes, int access);
  Result<void> offer_connection();
  Result<void> answer_request(Identifier* request, std::span<const std::byte> private_data);
  void release_endpoint();
  Result<void> announce_mappings();
  bool is_opening() const;
  StreamSizes sizes() const;

  // Works and sleeps until `ready` is true. kAgain: it is not, and waiting is not allowed.
  Result<void> wait_until(Lock& lock, int flags, const std::function<bool()>& ready);
  Result<void> wait_open(Lock& lock, int flags);
  void sleep(Lock& lock, std::uint64_t timeout_ns);
  bool take_completion_event();
  void wait_for_goodbye(Lock& lock);
  Result<std::size_t> send_piece(Lock& lock, std::span<const std::byte> data, int flags);

  Session& session_;
  std::mutex mutex_;
  std::condition_variable news_;
  bool somebody_sleeps_ = false;

  Channel* channel_;
  Identifier* identifier_ = nullptr;
  State state_ = State::kFresh;
  int failure_ = 0;
  SocketOptions options_;

  std::unique_ptr<StreamCore> core_;
  std::vector<std::byte> send_memory_;
  std::vector<std::byte> receive_memory_;
  std::vector<std::byte> lists_;
  std::vector<ibv_mr*> regions_;
  StreamMemory memory_;
  std::vector<Mapping> mappings_;
  unsigned idle_polls_ = 0;
  bool settled_ = false;  // We may write: the peer is ready.
};

}  // namespace isthmus::rdmacm
