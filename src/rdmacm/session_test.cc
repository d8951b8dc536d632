// Goal: events reach the ids they are for and no others, through every way an id can go away or
// move, and a session outlives its daemon.
// Method: a Session whose daemon is scripted; ids stay unbound, so that no device is needed.
#include "rdmacm/session.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <future>
#include <thread>

#include "os/clock.h"
#include "os/epoll.h"
#include "os/poll.h"
#include "rdmacm/endpoint.h"
#include "rdmacm/scripted_daemon.h"

namespace isthmus::rdmacm {
namespace {

class SessionTest : public ::testing::Test {
 protected:
  SessionTest() : daemon_(std::make_unique<ScriptedDaemon>()) {}

  Result<std::unique_ptr<DaemonLink>> open_link() {
    ++opened_;
    on_open_();
    if (daemon_ == nullptr) return fail(ErrorCode::kRefused, "no daemon in this test");
    return daemon_->take_link();
  }

  Channel& channel() { return *session_.create_channel().value(); }

  Identifier& identifier(Channel& on) {
    return *session_.create_identifier({.channel = &on, .context = this}).value();
  }

  static attach::CmEvent event_of(const Identifier& id, attach::CmEventType type) {
    attach::CmEvent event;
    event.type = type;
    event.id = id.handle;
    event.cookie = id.cookie;
    return event;
  }

  static attach::CmEvent request_for(const Identifier& listener, std::uint32_t handle) {
    attach::CmEvent event;
    event.type = attach::CmEventType::kConnectRequest;
    event.id = handle;
    event.listen_id = listener.handle;
    event.listen_cookie = listener.cookie;
    return event;
  }

  // The next event without waiting; null: none.
  Event* next(Channel& on) {
    const auto event = session_.next_event(on, Session::Patience::kNone);
    return event ? *event : nullptr;
  }

  static bool readable(const Channel& on) { return os::wait_readable({&on.fd, 1}, 0) != 0; }

  std::unique_ptr<ScriptedDaemon> daemon_;
  int opened_ = 0;
  std::function<void()> on_open_ = [] {};
  Session session_{[this] { return open_link(); }};
};

TEST_F(SessionTest, AnEventReachesItsId) {
  Channel& on = channel();
  Identifier& id = identifier(on);
  Identifier& other = identifier(on);
  EXPECT_FALSE(readable(on));
  daemon_->send(on.handle, event_of(id, attach::CmEventType::kUnreachable));
  EXPECT_TRUE(readable(on));
  Event* const event = next(on);
  ASSERT_NE(event, nullptr);
  EXPECT_EQ(event->id, &id);
  EXPECT_EQ(event->event, RDMA_CM_EVENT_UNREACHABLE);
  EXPECT_EQ(event->id->context, this);
  EXPECT_FALSE(readable(on));
  session_.acknowledge(event);
  session_.destroy_identifier(&id);
  session_.destroy_identifier(&other);
  session_.destroy_channel(&on);
  EXPECT_EQ(daemon_->asked(attach::CmCommand::kDestroyId).size(), 2u);
  EXPECT_EQ(daemon_->asked(attach::CmCommand::kDestroyChannel).size(), 1u);
}

TEST_F(SessionTest, EventsOfADestroyedIdAreNotShown) {
  Channel& on = channel();
  Identifier& gone = identifier(on);
  Identifier& stays = identifier(on);
  daemon_->send(on.handle, event_of(gone, attach::CmEventType::kUnreachable));
  daemon_->send(on.handle, event_of(stays, attach::CmEventType::kTimewaitExit));
  daemon_->send(on.handle, event_of(gone, attach::CmEventType::kTimewaitExit));
  session_.destroy_identifier(&gone);
  // What is for the other id waits, and the descriptor says so; then it is quiet.
  EXPECT_TRUE(readable(on));
  Event* const event = next(on);
  ASSERT_NE(event, nullptr);
  EXPECT_EQ(event->id, &stays);
  session_.acknowledge(event);
  EXPECT_EQ(next(on), nullptr);
  EXPECT_FALSE(readable(on));
  session_.destroy_identifier(&stays);
  session_.destroy_channel(&on);
}

TEST_F(SessionTest, DestroyWaitsForTheAcknowledgement) {
  Channel& on = channel();
  Identifier& id = identifier(on);
  daemon_->send(on.handle, event_of(id, attach::CmEventType::kTimewaitExit));
  Event* const event = next(on);
  std::atomic<bool> destroyed{false};
  std::thread destroyer([&] {
    session_.destroy_identifier(&id);
    destroyed = true;
  });
  // The daemon hears of it before the wait; until the event is given back nothing more happens.
  while (daemon_->asked(attach::CmCommand::kDestroyId).empty()) std::this_thread::yield();
  EXPECT_FALSE(destroyed);
  session_.acknowledge(event);
  destroyer.join();
  session_.destroy_channel(&on);
}

TEST_F(SessionTest, ARequestMakesAnId) {
  Channel& on = channel();
  Identifier& listener = identifier(on);
  attach::CmEvent request = request_for(listener, 77);
  request.private_data.bytes = 3;
  request.private_data.data = {'a', 'b', 'c'};
  request.connection.qpn = 0x123;
  daemon_->send(on.handle, request);
  // An event of the new id before it is accepted: it has no cookie yet.
  attach::CmEvent early;
  early.type = attach::CmEventType::kUnreachable;
  early.id = 77;
  daemon_->send(on.handle, early);

  Event* const event = next(on);
  ASSERT_NE(event, nullptr);
  EXPECT_EQ(event->listen_id, &listener);
  ASSERT_NE(event->id, &listener);
  EXPECT_EQ(event->id->context, this);
  EXPECT_EQ(event->id->channel, &on);
  EXPECT_EQ(event->param.conn.private_data_len, 3);
  EXPECT_EQ(std::memcmp(event->param.conn.private_data, "abc", 3), 0);
  EXPECT_EQ(event->param.conn.qp_num, 0x123u);
  Event* const second = next(on);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->id, event->id);
  Identifier& child = Identifier::of(event->id);
  session_.acknowledge(event);
  session_.acknowledge(second);
  session_.destroy_identifier(&child);
  session_.destroy_identifier(&listener);
  session_.destroy_channel(&on);
}

TEST_F(SessionTest, ARequestToADestroyedListenerIsGivenBack) {
  Channel& on = channel();
  Identifier& listener = identifier(on);
  daemon_->send(on.handle, request_for(listener, 78));
  session_.destroy_identifier(&listener);
  EXPECT_EQ(next(on), nullptr);
  const auto destroyed = daemon_->asked(attach::CmCommand::kDestroyId);
  ASSERT_EQ(destroyed.size(), 2u);
  EXPECT_EQ(attach::header_of(destroyed[1]).id, 78u);
  session_.destroy_channel(&on);
}

TEST_F(SessionTest, MigratingTakesUnseenEventsAlong) {
  Channel& from = channel();
  Channel& to = channel();
  Identifier& moves = identifier(from);
  Identifier& stays = identifier(from);
  daemon_->send(from.handle, event_of(moves, attach::CmEventType::kUnreachable));
  daemon_->send(from.handle, event_of(stays, attach::CmEventType::kTimewaitExit));
  ASSERT_TRUE(session_.migrate(moves, &to));
  daemon_->send(to.handle, event_of(moves, attach::CmEventType::kTimewaitExit));
  EXPECT_EQ(moves.channel, &to);

  Event* first = next(to);
  ASSERT_NE(first, nullptr);
  EXPECT_EQ(first->event, RDMA_CM_EVENT_UNREACHABLE);
  session_.acknowledge(first);
  Event* second = next(to);
  ASSERT_NE(second, nullptr);
  EXPECT_EQ(second->event, RDMA_CM_EVENT_TIMEWAIT_EXIT);
  session_.acknowledge(second);
  Event* other = next(from);
  ASSERT_NE(other, nullptr);
  EXPECT_EQ(other->id, &stays);
  session_.acknowledge(other);
  for (Identifier* id : {&moves, &stays}) session_.destroy_identifier(id);
  for (Channel* on : {&from, &to}) session_.destroy_channel(on);
}

TEST_F(SessionTest, ASynchronousIdWaitsForItsEvent) {
  Identifier& id = *session_.create_identifier({}).value();
  ASSERT_TRUE(id.synchronous);
  attach::CmEvent resolved = event_of(id, attach::CmEventType::kAddressError);
  resolved.status = -ENETUNREACH;
  daemon_->send(Channel::of(id.channel).handle, resolved);
  attach::CmAddress destination;
  destination.family = AF_INET;
  destination.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 9};
  const auto done = resolve_address(id, {}, destination, 100);
  ASSERT_FALSE(done);
  EXPECT_EQ(static_cast<int>(done.error().code), ENETUNREACH);
  ASSERT_NE(id.event, nullptr);
  session_.acknowledge(static_cast<Event*>(id.event));
  session_.destroy_identifier(&id);
}

TEST_F(SessionTest, ARefusedRequestCarriesItsError) {
  Channel& on = channel();
  daemon_->refuse(attach::CmCommand::kCreateId, ENOMEM);
  const auto made = session_.create_identifier({.channel = &on});
  ASSERT_FALSE(made);
  EXPECT_EQ(made.error().code, ErrorCode::kNoMemory);
  session_.destroy_channel(&on);
}

TEST_F(SessionTest, WithoutADaemonThereIsNoDevice) {
  daemon_.reset();
  const auto made = session_.create_channel();
  ASSERT_FALSE(made);
  EXPECT_EQ(static_cast<int>(made.error().code), ENODEV);
}

TEST_F(SessionTest, AKilledDaemonEndsWhatWasUnderway) {
  Channel& on = channel();
  Identifier& connecting = identifier(on);
  Identifier& idle = identifier(on);
  connecting.stage = Stage::kConnecting;
  daemon_.reset();
  EXPECT_TRUE(readable(on));
  Event* const event = next(on);
  ASSERT_NE(event, nullptr);
  EXPECT_EQ(event->id, &connecting);
  EXPECT_EQ(event->event, RDMA_CM_EVENT_UNREACHABLE);
  EXPECT_EQ(event->status, -ENODEV);
  session_.acknowledge(event);
  EXPECT_EQ(next(on), nullptr);
  EXPECT_FALSE(readable(on)) << "a dead daemon must not keep the descriptor busy";
  for (Identifier* id : {&connecting, &idle}) session_.destroy_identifier(id);
  session_.destroy_channel(&on);
}

TEST_F(SessionTest, ANewDaemonIsToldWhatThereIs) {
  Channel& on = channel();
  Identifier& listener = identifier(on);
  daemon_->route.source.family = AF_INET;
  daemon_->route.source.port = 7471;
  daemon_->route.source.ip = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0};
  ASSERT_TRUE(start_listening(listener, 5));
  Identifier& established = identifier(on);
  established.stage = Stage::kEstablished;
  established.facts = {.active = true, .local_qpn = 5, .remote_qpn = 6};

  daemon_ = std::make_unique<ScriptedDaemon>();
  Identifier& fresh = identifier(on);  // The call that notices.
  EXPECT_EQ(opened_, 2);
  ASSERT_EQ(daemon_->asked(attach::CmCommand::kCreateChannel).size(), 1u);
  const auto listens = daemon_->asked(attach::CmCommand::kListen);
  ASSERT_EQ(listens.size(), 1u);
  EXPECT_EQ(std::get<attach::CmListen>(listens[0]).backlog, 5);
  const auto binds = daemon_->asked(attach::CmCommand::kBindAddress);
  ASSERT_EQ(binds.size(), 1u);
  EXPECT_EQ(std::get<attach::CmBindAddress>(binds[0]).address.port, 7471);
  const auto restored = daemon_->asked(attach::CmCommand::kRestoreId);
  ASSERT_EQ(restored.size(), 1u);
  EXPECT_EQ(std::get<attach::CmRestoreId>(restored[0]).remote_qpn, 6u);

  // The same descriptor works with the new daemon.
  daemon_->send(on.handle, request_for(listener, 1000));
  Event* const event = next(on);
  ASSERT_NE(event, nullptr);
  EXPECT_EQ(event->listen_id, &listener);
  Identifier& child = Identifier::of(event->id);
  session_.acknowledge(event);
  for (Identifier* id : {&child, &fresh, &established, &listener}) session_.destroy_identifier(id);
  session_.destroy_channel(&on);
}

// With or without waiting, a program sees nothing but a descriptor that becomes readable.
TEST_F(SessionTest, AChannelLooksForTheNextDaemonByItself) {
  Channel& on = channel();
  Identifier& listener = identifier(on);
  ASSERT_TRUE(start_listening(listener, 5));
  daemon_.reset();
  EXPECT_EQ(next(on), nullptr);
  // Twice in vain.
  for (int expected = 3; expected <= 4; ++expected) {
    ASSERT_NE(os::wait_readable({&on.fd, 1}, 10 * os::kNsPerSecond), 0u);
    EXPECT_EQ(next(on), nullptr);
    EXPECT_EQ(opened_, expected);
  }
  EXPECT_EQ(next(on), nullptr);
  EXPECT_EQ(opened_, 4) << "looks without a pause";

  daemon_ = std::make_unique<ScriptedDaemon>();
  ASSERT_NE(os::wait_readable({&on.fd, 1}, 10 * os::kNsPerSecond), 0u);
  EXPECT_EQ(next(on), nullptr);
  EXPECT_EQ(daemon_->asked(attach::CmCommand::kListen).size(), 1u);
  EXPECT_FALSE(readable(on)) << "the timer still runs";
  session_.destroy_identifier(&listener);
  session_.destroy_channel(&on);
}

TEST_F(SessionTest, AThreadThatWaitsForAnEventGetsThatOfTheNextDaemon) {
  Channel& on = channel();
  Identifier& listener = identifier(on);
  ASSERT_TRUE(start_listening(listener, 5));
  daemon_.reset();
  std::promise<void> looked_in_vain;
  auto next_daemon = std::make_unique<ScriptedDaemon>();
  ScriptedDaemon& next_one = *next_daemon;
  on_open_ = [&] {
    if (opened_ == 4) daemon_ = std::move(next_daemon);
    if (opened_ == 3) looked_in_vain.set_value();
  };
  auto event = std::async(std::launch::async, [&] { return session_.next_event(on); });
  looked_in_vain.get_future().wait();
  while (next_one.asked(attach::CmCommand::kListen).empty()) std::this_thread::yield();
  next_one.send(on.handle, request_for(listener, 1000));
  Event* const request = event.get().value();
  EXPECT_EQ(request->listen_id, &listener);
  Identifier& child = Identifier::of(request->id);
  session_.acknowledge(request);
  for (Identifier* id : {&child, &listener}) session_.destroy_identifier(id);
  session_.destroy_channel(&on);
}

TEST_F(SessionTest, AConnectionThatIsNotRestoredIsDisconnected) {
  Channel& on = channel();
  Identifier& established = identifier(on);
  established.stage = Stage::kEstablished;
  daemon_ = std::make_unique<ScriptedDaemon>();
  daemon_->refuse(attach::CmCommand::kRestoreId, EACCES);
  ASSERT_TRUE(session_.ensure_daemon());  // Has a link still; the loss shows with the channel.
  Event* const event = next(on);
  ASSERT_NE(event, nullptr);
  EXPECT_EQ(event->event, RDMA_CM_EVENT_DISCONNECTED);
  session_.acknowledge(event);
  session_.destroy_identifier(&established);
  session_.destroy_channel(&on);
}

TEST_F(SessionTest, AChildMayNotUseItsParentsIds) {
  Channel& on = channel();
  Identifier& id = identifier(on);
  EXPECT_TRUE(Session::own(&id));
  session_.set_forgotten();  // As the fork handler does in a child.
  EXPECT_EQ(static_cast<int>(Session::own(&id).error().code), EPERM);
  session_.destroy_identifier(&id);
  session_.destroy_channel(&on);
}

}  // namespace
}  // namespace isthmus::rdmacm
