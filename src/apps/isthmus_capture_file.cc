#include "apps/isthmus_capture_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "wire/ip.h"
#include "wire/pcap.h"
#include "wire/pcapng.h"
#include "wire/roce_packet.h"

namespace isthmus::apps {
namespace {

constexpr std::uint32_t kRoceInterface = 0;
constexpr std::uint32_t kMemoryInterface = 1;
constexpr std::uint32_t kLongestPacket = 65'535;

std::uint16_t clamped(std::size_t bytes) {
  return static_cast<std::uint16_t>(std::min<std::size_t>(bytes, kLongestPacket));
}

// IP and UDP headers of a payload that had original_bytes.
std::vector<std::byte> headers_of(const control::PacketReport& packet) {
  std::array<std::byte, wire::kIpv6Bytes + wire::kUdpBytes> buffer{};
  const std::size_t udp_bytes = wire::kUdpBytes + packet.original_bytes;
  std::size_t used = 0;
  if (packet.source.is_v4() && packet.destination.is_v4()) {
    used = wire::encode(wire::Ipv4Header{.total_bytes = clamped(wire::kIpv4Bytes + udp_bytes),
                                         .id = packet.ip_id,
                                         .source = packet.source.v4(),
                                         .destination = packet.destination.v4()},
                        buffer.data());
  } else {
    used = wire::encode(wire::Ipv6Header{.payload_bytes = clamped(udp_bytes),
                                         .source = packet.source,
                                         .destination = packet.destination},
                        buffer.data());
  }
  used += wire::encode(wire::UdpHeader{.source_port = packet.source_port,
                                       .destination_port = wire::kRoceUdpPort,
                                       .total_bytes = clamped(udp_bytes)},
                       buffer.data() + used);
  return {buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(used)};
}

}  // namespace

std::vector<std::byte> capture_preamble() {
  std::vector<std::byte> out;
  wire::append_pcapng_section(out, "isthmus " ISTHMUS_VERSION);
  wire::append_pcapng_interface(
      out,
      {.name = "isthmus-roce", .description = "RoCEv2 channel", .link_type = wire::kLinkTypeRawIp});
  wire::append_pcapng_interface(out,
                                {.name = "isthmus-memory",
                                 .description = "Memory channel, shown as the packets it replaces",
                                 .link_type = wire::kLinkTypeRawIp});
  return out;
}

std::vector<std::byte> capture_block(const control::PacketReport& packet) {
  const std::vector<std::byte> headers = headers_of(packet);
  std::string comment = fmt::format("pid {} qp {:#x}", packet.process_id, packet.local_qpn);
  if (packet.memory_channel) comment += ", moved by the memory channel without packets";
  const std::array<std::span<const std::byte>, 2> pieces{headers, packet.payload};
  std::vector<std::byte> out;
  wire::append_pcapng_packet(
      out,
      {.interface_id = packet.memory_channel ? kMemoryInterface : kRoceInterface,
       .timestamp_ns = packet.timestamp_ns,
       .direction =
           packet.incoming ? wire::CaptureDirection::kInbound : wire::CaptureDirection::kOutbound,
       .original_bytes = static_cast<std::uint32_t>(headers.size() + packet.original_bytes),
       .comment = comment},
      pieces);
  return out;
}

std::string packet_line(const control::PacketReport& packet) {
  const std::uint64_t second_of_day = packet.timestamp_ns / 1'000'000'000 % 86'400;
  std::string line =
      fmt::format("{:02}:{:02}:{:02}.{:09} {} {} {} > {} ", second_of_day / 3600,
                  second_of_day / 60 % 60, second_of_day % 60, packet.timestamp_ns % 1'000'000'000,
                  packet.incoming ? "in " : "out", packet.memory_channel ? "memory" : "roce  ",
                  packet.source.to_string(), packet.destination.to_string());
  const auto decoded = wire::decode_roce(packet.payload);
  if (!decoded) return line + fmt::format("malformed, {} bytes", packet.original_bytes);
  const wire::Opcode opcode = decoded->bth.opcode;
  return line + fmt::format("{} {} qp {:#x} psn {} {} bytes", wire::service_name(opcode),
                            wire::operation_name(opcode), decoded->bth.dest_qpn, decoded->bth.psn,
                            decoded->payload.size());
}

}  // namespace isthmus::apps
