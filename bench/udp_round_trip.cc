// What the kernel's UDP takes for a round trip, with nothing on top: two processes that send each
// other a datagram and block in recv() for the answer, the peer of a sleeping target; or that ask
// again and again, the floor of everything that polls a UDP socket.
//
//     udp_round_trip serve PORT [spin]
//     udp_round_trip ping ADDRESS PORT BYTES [spin]   prints the median half round trip, in us
#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

namespace {

constexpr int kRounds = 5000;

// MSG_DONTWAIT: spin. Bytes, or -1.
ssize_t receive(int fd, std::span<char> bytes, int flags, sockaddr_in* peer) {
  for (;;) {
    socklen_t peer_bytes = sizeof *peer;
    const ssize_t count = recvfrom(fd, bytes.data(), bytes.size(), flags,
                                   reinterpret_cast<sockaddr*>(peer), &peer_bytes);
    if (count >= 0 || errno != EAGAIN) return count;
  }
}

int serve(int port, int flags) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in own{};
  own.sin_family = AF_INET;
  own.sin_port = htons(static_cast<std::uint16_t>(port));
  if (bind(fd, reinterpret_cast<sockaddr*>(&own), sizeof own) != 0) return 1;
  char bytes[65536];
  for (;;) {
    sockaddr_in peer{};
    const ssize_t count = receive(fd, bytes, flags, &peer);
    if (count < 0) return 1;
    sendto(fd, bytes, static_cast<std::size_t>(count), 0, reinterpret_cast<sockaddr*>(&peer),
           sizeof peer);
  }
}

int ping(const char* address, int port, std::size_t size, int flags) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  peer.sin_port = htons(static_cast<std::uint16_t>(port));
  inet_pton(AF_INET, address, &peer.sin_addr);
  if (connect(fd, reinterpret_cast<sockaddr*>(&peer), sizeof peer) != 0) return 1;
  std::vector<char> bytes(size);
  std::vector<double> half_round_trips;
  for (int i = 0; i < kRounds; ++i) {
    const auto start = std::chrono::steady_clock::now();
    if (send(fd, bytes.data(), size, 0) < 0 || receive(fd, bytes, flags, &peer) < 0) {
      std::fprintf(stderr, "Connection refused\n");
      return 1;
    }
    const std::chrono::duration<double, std::micro> time =
        std::chrono::steady_clock::now() - start;
    half_round_trips.push_back(time.count() / 2);
  }
  std::nth_element(half_round_trips.begin(), half_round_trips.begin() + kRounds / 2,
                   half_round_trips.end());
  std::printf("%.3f\n", half_round_trips[kRounds / 2]);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const bool spins = argc > 1 && std::strcmp(argv[argc - 1], "spin") == 0;
  const int words = argc - (spins ? 1 : 0);
  const int flags = spins ? MSG_DONTWAIT : 0;
  if (words == 3 && std::strcmp(argv[1], "serve") == 0) return serve(std::atoi(argv[2]), flags);
  if (words == 5 && std::strcmp(argv[1], "ping") == 0) {
    const auto bytes = static_cast<std::size_t>(std::atoi(argv[4]));
    return ping(argv[2], std::atoi(argv[3]), bytes, flags);
  }
  std::fprintf(stderr, "usage: udp_round_trip serve PORT [spin] | "
                       "ping ADDRESS PORT BYTES [spin]\n");
  return 2;
}
