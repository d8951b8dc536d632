// The times and bounds of the connection manager, with their arithmetic.
//
// Primer: the protocol's own times are codes, 4.096 us * 2^code. A code of 20 is 4.3 s, which is
// what rdma_cm tells its peer to expect and therefore the longest wait between two attempts here.
// The first attempts come sooner: a duplicate costs the peer nothing, and over a lossy network a
// connection that needs two retries should not take nine seconds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace isthmus::cm {

constexpr std::uint64_t kMillisecond = 1'000'000;  // ns
constexpr std::uint64_t kSecond = 1'000 * kMillisecond;

// What a 5-bit time code stands for.
constexpr std::uint64_t time_of_code_ns(unsigned code) { return 4096ull << (code & 31); }

// The codes that rdma_cm of Linux sends; they are on the wire.
constexpr std::uint8_t kResponseTimeoutCode = 20;
constexpr std::uint8_t kMraServiceTimeoutCode = 24;
constexpr std::uint8_t kMaxCmRetries = 15;
static_assert(time_of_code_ns(kResponseTimeoutCode) / kMillisecond == 4294);

struct Settings {
  // Attempts of one message: after 250 ms, 500 ms, ... 4.3 s, 4.3 s, until its time is up.
  std::uint64_t first_retry_ns = 250 * kMillisecond;
  std::uint64_t longest_retry_ns = time_of_code_ns(kResponseTimeoutCode);

  // Without any answer, connect fails after this. An MRA ("I have it, be patient") moves the end to
  // its service timeout from then, at most to max_patience_ns after the first attempt.
  std::uint64_t connect_give_up_ns = 30 * kSecond;
  std::uint64_t max_patience_ns = 600 * kSecond;
  // A disconnect that nobody answers is complete after this.
  std::uint64_t disconnect_give_up_ns = 10 * kSecond;

  // How long the numbers of a closed connection stay unused, so that a late packet of it meets
  // nobody: the transport timeout of a peer with rdma_cm's default code, 19.
  std::uint64_t timewait_ns = time_of_code_ns(19);
  // How long a refusal or a SIDR answer is kept to be repeated for a duplicate request.
  std::uint64_t answer_kept_ns = 2 * time_of_code_ns(kResponseTimeoutCode);

  // Lifetime of a packet in the network, as a code: 0.27 s. The transport timeout of the queue
  // pair is one more: 0.54 s, and with 7 retries a silent peer is given up after 4.3 s.
  std::uint8_t packet_life_time_code = 16;

  std::size_t max_exchanges = 65'536;  // About 1 KiB each.
  std::size_t max_timewait = 262'144;  // About 100 B each; beyond, the oldest is forgotten.
};

}  // namespace isthmus::cm
