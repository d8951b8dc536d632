// The peer of the sleeping target: two processes that send each other a datagram and block in
// recv() for the answer.
//
//     udp_round_trip serve PORT
//     udp_round_trip ping ADDRESS PORT BYTES      prints the median half round trip, microseconds
#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace {

constexpr int kRounds = 5000;

int serve(int port) {
  const int fd = socket(AF_INET, SOCK_DGRAM, 0);
  sockaddr_in own{};
  own.sin_family = AF_INET;
  own.sin_port = htons(static_cast<std::uint16_t>(port));
  if (bind(fd, reinterpret_cast<sockaddr*>(&own), sizeof own) != 0) return 1;
  char bytes[65536];
  for (;;) {
    sockaddr_in peer{};
    socklen_t peer_bytes = sizeof peer;
    const ssize_t count =
        recvfrom(fd, bytes, sizeof bytes, 0, reinterpret_cast<sockaddr*>(&peer), &peer_bytes);
    if (count < 0) return 1;
    sendto(fd, bytes, static_cast<std::size_t>(count), 0, reinterpret_cast<sockaddr*>(&peer),
           peer_bytes);
  }
}

int ping(const char* address, int port, std::size_t size) {
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
    if (send(fd, bytes.data(), size, 0) < 0 || recv(fd, bytes.data(), size, 0) < 0) {
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
  if (argc == 3 && std::strcmp(argv[1], "serve") == 0) return serve(std::atoi(argv[2]));
  if (argc == 5 && std::strcmp(argv[1], "ping") == 0) {
    return ping(argv[2], std::atoi(argv[3]), static_cast<std::size_t>(std::atoi(argv[4])));
  }
  std::fprintf(stderr, "usage: udp_round_trip serve PORT | ping ADDRESS PORT BYTES\n");
  return 2;
}
