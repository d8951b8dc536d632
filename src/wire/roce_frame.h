// An Ethernet frame around a RoCEv2 packet: taken apart for captures that are read, put together
// for captures that are written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>

#include "wire/decode_error.h"
#include "wire/icrc.h"
#include "wire/ip.h"

namespace isthmus::wire {

inline constexpr std::size_t kMaxRoceFrameHeaderBytes = kEthernetBytes + kIpv6Bytes + kUdpBytes;

struct RoceFrame {
  IcrcFlow flow;
  MacAddress destination_mac{};
  MacAddress source_mac{};
  std::uint8_t traffic_class = 0;  // IPv4: TOS.
  std::uint8_t hop_limit = 64;     // IPv4: TTL.
  std::uint16_t ip_id = 0;         // IPv4 only.
  bool dont_fragment = true;       // IPv4 only.
  std::uint32_t flow_label = 0;    // IPv6 only.
  std::uint16_t udp_checksum = 0;
  std::span<const std::byte> udp_payload;  // Borrowed: BTH to ICRC.
};

// Takes any frame; an error is also the answer to one that is no UDP over IP, or not to port 4791.
std::expected<RoceFrame, DecodeError> decode_roce_frame(std::span<const std::byte> ethernet);

// Writes the Ethernet, IP and UDP headers that go before frame.udp_payload, and returns their
// length, at most kMaxRoceFrameHeaderBytes. The UDP checksum is as given.
std::size_t encode_roce_frame_headers(const RoceFrame& frame, std::byte* out);

}  // namespace isthmus::wire
