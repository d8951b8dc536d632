// FunctionService: hands out virtual functions, admits their connections, finds neighbours, tells
// functions what changes, and cleans up behind those that are gone.
//
// Primer: a function is a number, a member of that number in each socket group, a window, a
// doorbell and two connections to its process: requests, and events. It lives as long as the
// request connection and the process do. Then its window is marked closed, the neighbours' doors
// are rung so that they look, and its number goes to the next who comes.
//
// Invariants: a number is not given to another user than the one who had it before: a process may
// have kept a copy of its sockets. Datagrams for a number that nobody has go to socket 0.
//
// A function that does not acknowledge a revocation within kAcknowledgePatienceNs is cut off: what
// the network has for it goes to socket 0, until it does acknowledge.
//
// Threading: shard-confined to the loop.
// Input: everything a process sends is decoded by attach_protocol.h and checked here for meaning.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "attach/attach_protocol.h"
#include "base/result.h"
#include "control/admission_gate.h"
#include "control/event_loop.h"
#include "control/function.h"
#include "control/place.h"
#include "os/unix_socket.h"

namespace isthmus::control {

constexpr std::uint64_t kAcknowledgePatienceNs = 200'000'000;
// Clients look for a daemon every 2 s, and the machine may be busy.
constexpr std::uint64_t kReturnPatienceNs = 30'000'000'000;
// After a function came back, until its connections are judged again: the connection manager has
// to learn of them first.
constexpr std::uint64_t kRestoreGraceNs = 5'000'000'000;

struct FunctionCounters {
  std::uint64_t attached = 0;
  std::uint64_t detached = 0;
  std::uint64_t reattached = 0;
  std::uint64_t refused = 0;           // Greetings that got a failure.
  std::uint64_t admitted = 0;
  std::uint64_t denied = 0;            // By policy.
  std::uint64_t neighbours = 0;        // Admissions that found the peer on this host.
  std::uint64_t revoked = 0;           // Queue pairs told to stop.
  std::uint64_t restricted = 0;        // Queue pairs whose peer lost rights.
  std::uint64_t not_acknowledged = 0;  // Events without an answer in time.
};

// What else happens around functions. Called on the loop.
class FunctionObserver {
 public:
  virtual ~FunctionObserver() = default;
  // Its process is about to be told.
  virtual void on_prepared(const Function&) {}
  virtual void on_attached(const Function&) {}
  virtual void on_detached(const Function&) {}
  // Its process could not be told, or did not come back to this daemon.
  virtual void on_given_up(std::uint32_t) {}
  // It did not acknowledge in time.
  virtual void on_cut_off(const Function&) {}
};

// A function of an earlier daemon, whose process is expected to come back.
struct KeptFunction {
  std::uint32_t index = 0;
  std::uint64_t generation = 0;
  std::uint32_t user_id = 0;
  os::Fd window_file;
  os::Fd doorbell;
  const Place* place = nullptr;  // Set by expect().
};

struct Greeting {
  attach::Hello hello;
  std::vector<os::Fd> fds;  // That came with it.
  os::PeerCredentials credentials{};
};

class FunctionService {
 public:
  FunctionService(EventLoop& loop, AdmissionGate& gate, std::string default_label)
      : loop_(loop), gate_(gate), default_label_(std::move(default_label)) {}
  ~FunctionService();
  FunctionService(const FunctionService&) = delete;
  FunctionService& operator=(const FunctionService&) = delete;

  void add_observer(FunctionObserver& observer) { observers_.push_back(&observer); }

  // Keeps the number of a function for its process, for kReturnPatienceNs.
  void expect(KeptFunction kept, Place& place);

  // Serves a connection of kind function or reattach from its greeting on; answers it.
  void serve(os::Fd connection, Greeting greeting, Place& place);

  // Null: nobody has it.
  const Function* find(std::uint32_t function) const;
  const Function* owner_of_qp(std::uint32_t qpn) const;
  void for_each(const std::function<void(const Function&)>& visit) const;
  // Those expected to come back count.
  std::size_t count() const { return functions_.size() + expected_.size(); }

  // What the gate is asked about a standing admission.
  AdmissionQuestion question_of(const Function& function, const Admission& admission) const;

  // Whether a function is there, or expected back.
  bool uses(const Place& place) const;

  // Asks the gate again about every admission: revokes what is denied now and restricts what has
  // lost rights. Returns how many were touched.
  std::size_t reevaluate();

  // Events. kNotFound: no function has that QP.
  Result<void> revoke(std::uint32_t qpn);
  Result<void> restrict_access(std::uint32_t qpn, std::uint32_t access);
  Result<void> change_channel(std::uint32_t qpn, rdma::ChannelKind channel);
  Result<void> start_capture(std::uint32_t function, const os::Fd& ring);
  void announce_gids(const Place& place);
  void announce_closing();
  // Lets go of all functions and says nothing to anybody: they are the next daemon's.
  void leave();

  const FunctionCounters& counters() const { return counters_; }

 private:
  Result<std::unique_ptr<Function>> make_function(Greeting& greeting, Place& place);
  Result<std::unique_ptr<Function>> take_function_back(Greeting& greeting, Place& place);
  Result<std::uint32_t> free_index(std::uint32_t user_id) const;
  void describe(Function& function, const Greeting& greeting, Place& place);
  void give_up_waiting(std::uint32_t index);
  Result<void> send_grant(const os::Fd& connection, Function& function);
  Result<void> watch(Function& function);
  void restore_admissions(Function& function);

  void on_request(std::uint32_t index);
  void on_acknowledgement(std::uint32_t index);
  void detach(std::uint32_t index, const char* reason);
  void forget(std::uint32_t index);  // Without telling anybody.

  Result<void> answer_admit(Function& function, const attach::Admit& admit);
  Function* neighbour_for(const Function& function, const Admission& admission);

  Result<void> send_event(Function& function, attach::Event event, const os::Fd* passed);
  void on_silence(std::uint32_t index, std::uint64_t number);
  Result<Function*> function_of_qp(std::uint32_t qpn);

  EventLoop& loop_;
  AdmissionGate& gate_;
  const std::string default_label_;
  std::vector<FunctionObserver*> observers_;
  std::map<std::uint32_t, std::unique_ptr<Function>> functions_;  // By index.
  std::map<std::uint32_t, KeptFunction> expected_;                // By index.
  std::map<std::uint32_t, std::uint32_t> last_user_;              // Of an index.
  std::uint64_t last_event_number_ = 0;
  FunctionCounters counters_;
};

attach::GidTable gid_table_message(const std::vector<LocalGid>& gids);

}  // namespace isthmus::control
