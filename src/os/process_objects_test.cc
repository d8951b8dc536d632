// Goal: the small objects that processes share behave as their headers say.
// Method: one property each, within this process.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>

#include "os/clock.h"
#include "os/epoll.h"
#include "os/event_fd.h"
#include "os/interfaces.h"
#include "os/netns.h"
#include "os/process_memory.h"
#include "os/random.h"
#include "os/shared_memory.h"
#include "os/unix_socket.h"

namespace isthmus::os {
namespace {

TEST(SharedMemory, IsZeroedSharedAndOfFixedSize) {
  auto file = create_shared_memory("test", 8192);
  ASSERT_TRUE(file);
  auto first = Mapping::create(*file, 8192);
  auto second = Mapping::create(*file, 8192);
  ASSERT_TRUE(first && second);
  EXPECT_EQ((*first)->data()[5000], std::byte{0});
  (*first)->data()[5000] = std::byte{7};
  EXPECT_EQ((*second)->data()[5000], std::byte{7});

  EXPECT_NE(ftruncate(file->get(), 0), 0);
  EXPECT_TRUE(check_shared_memory(*file, 8192));
  EXPECT_FALSE(check_shared_memory(*file, 4096));
  ASSERT_TRUE(discard_shared_memory(*file, 8192));
  EXPECT_EQ((*first)->data()[5000], std::byte{0});
}

TEST(SharedMemory, RefusesAFileThatCouldShrink) {
  const Fd file{memfd_create("test", 0)};
  ASSERT_EQ(ftruncate(file.get(), 4096), 0);
  EXPECT_FALSE(check_shared_memory(file, 4096));
}

TEST(EventFd, WakesAnEpollAndDrains) {
  auto bell = create_event_fd();
  auto epoll = Epoll::create();
  ASSERT_TRUE(bell && epoll);
  ASSERT_TRUE((*epoll)->add(bell->get(), 42));
  std::array<Readiness, 4> ready;
  EXPECT_TRUE((*epoll)->wait(ready, 0).empty());
  signal(bell->get());
  signal(bell->get());
  const auto found = (*epoll)->wait(ready, kWaitForEver);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].tag, 42u);
  EXPECT_TRUE(found[0].readable);
  drain(bell->get());
  EXPECT_TRUE((*epoll)->wait(ready, 0).empty());
}

TEST(Epoll, WaitsAtLeastAsLongAsItWasTold) {
  auto epoll = Epoll::create();
  ASSERT_TRUE(epoll);
  std::array<Readiness, 1> ready;
  const std::uint64_t start = now_ns();
  EXPECT_TRUE((*epoll)->wait(ready, 300'000).empty());
  EXPECT_GE(now_ns() - start, 300'000u);
}

TEST(UnixSocket, CarriesMessagesWithDescriptors) {
  auto pair = unix_socket_pair();
  auto file = create_shared_memory("test", 4096);
  ASSERT_TRUE(pair && file);
  const std::array<std::byte, 3> text{std::byte{1}, std::byte{2}, std::byte{3}};
  std::vector<int> fds(kMaxPassedFds, file->get());
  ASSERT_TRUE(send_message(pair->first, text, fds));
  ASSERT_TRUE(send_message(pair->first, std::span(text).first(1), {}));

  // Whole messages, in order, each descriptor a new one.
  std::array<std::byte, 16> buffer;
  auto first = receive_message(pair->second, buffer);
  ASSERT_TRUE(first) << first.error().message;
  EXPECT_EQ(first->bytes, 3u);
  ASSERT_EQ(first->fds.size(), kMaxPassedFds);
  EXPECT_TRUE(check_shared_memory(first->fds.back(), 4096));
  auto second = receive_message(pair->second, buffer);
  ASSERT_TRUE(second);
  EXPECT_EQ(second->bytes, 1u);
  EXPECT_EQ(receive_message(pair->second, buffer).error().code, ErrorCode::kAgain);

  // Too long for the buffer: an error, and the descriptors are closed. Then the peer goes.
  ASSERT_TRUE(send_message(pair->first, text, fds));
  EXPECT_EQ(receive_message(pair->second, std::span(buffer).first(2)).error().code,
            ErrorCode::kInvalid);
  pair->first.reset();
  EXPECT_EQ(receive_message(pair->second, buffer).error().code, ErrorCode::kClosed);
}

TEST(UnixSocket, ListensAndTellsWhoConnects) {
  const std::string folder = testing::TempDir() + "isthmus-os-" + std::to_string(getpid());
  std::filesystem::create_directory(folder);
  const std::string path = folder + "/socket";
  EXPECT_EQ(connect_unix(path).error().code, ErrorCode::kNotFound);
  auto listener = listen_unix(path, UnixAccess::kOwner);
  ASSERT_TRUE(listener) << listener.error().message;
  EXPECT_EQ(std::filesystem::status(path).permissions(), std::filesystem::perms{0600});
  EXPECT_EQ(accept_unix(*listener).error().code, ErrorCode::kAgain);
  EXPECT_EQ(listen_unix(path, UnixAccess::kOwner).error().code, ErrorCode::kAddressInUse);

  auto client = connect_unix(path);
  ASSERT_TRUE(client) << client.error().message;
  auto accepted = accept_unix(*listener);
  ASSERT_TRUE(accepted);
  EXPECT_EQ(peer_credentials(*accepted)->process_id, getpid());
  EXPECT_EQ(peer_credentials(*accepted)->user_id, getuid());

  // Nobody listens any more: refused, though the file is there.
  listener->reset();
  EXPECT_EQ(connect_unix(path).error().code, ErrorCode::kRefused);
  std::filesystem::remove_all(folder);
}

TEST(UnixSocket, RefusesAPathThatIsTooLong) {
  const auto result = connect_unix(std::string(200, 'x'));
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
}

TEST(Interfaces, KnowTheLoopback) {
  const auto interfaces = list_interfaces();
  ASSERT_TRUE(interfaces);
  const auto loopback = std::ranges::find(*interfaces, "lo", &Interface::name);
  ASSERT_NE(loopback, interfaces->end());
  EXPECT_TRUE(loopback->is_loopback);
  EXPECT_GE(loopback->mtu, 1280u);
  EXPECT_TRUE(loopback->owns(*wire::IpAddress::parse("127.0.0.1")));
  EXPECT_TRUE(loopback->owns(*wire::IpAddress::parse("127.9.8.7")));
  EXPECT_FALSE(loopback->owns(*wire::IpAddress::parse("10.9.8.7")));
}

TEST(NetworkNamespace, OfThisProcessIsOne) {
  const auto mine = open_network_namespace(0);
  const auto by_pid = open_network_namespace(getpid());
  ASSERT_TRUE(mine && by_pid);
  EXPECT_EQ(*network_namespace_id(*mine), *network_namespace_id(*by_pid));
  EXPECT_FALSE(open_network_namespace(INT32_MAX));
}

TEST(ProcessMemory, IsProbedByItsContent) {
  const std::uint64_t value = random_u64() | 1;
  const auto address = reinterpret_cast<std::uint64_t>(&value);
  EXPECT_TRUE(probe_process_memory(getpid(), address, value));
  EXPECT_FALSE(probe_process_memory(getpid(), address, value + 1));
  EXPECT_FALSE(probe_process_memory(getpid(), 16, 0));
}

TEST(Random, DoesNotRepeatItself) { EXPECT_NE(random_u64(), random_u64()); }

}  // namespace
}  // namespace isthmus::os
