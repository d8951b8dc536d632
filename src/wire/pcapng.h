// Writes pcapng, the capture format of Wireshark: a section header, one interface description per
// interface, then packets in any order. Each function appends one block to a byte vector, which the
// caller writes where it wants; a file is the blocks one after the other.
//
// Spec: draft-ietf-opsawg-pcapng. Little-endian, as every reader takes both orders.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace isthmus::wire {

// What wrote the file, for Wireshark's capture properties.
void append_pcapng_section(std::vector<std::byte>& out, std::string_view application);

struct PcapngInterface {
  std::string_view name;
  std::string_view description;
  std::uint32_t link_type = 1;       // kLinkTypeEthernet or kLinkTypeRawIp.
  std::uint32_t snapshot_bytes = 0;  // The longest packet kept; 0 is no limit.
};
// Interfaces are numbered from 0 in the order of these blocks. Timestamps are in nanoseconds.
void append_pcapng_interface(std::vector<std::byte>& out, const PcapngInterface& interface);

enum class CaptureDirection : std::uint32_t { kUnknown = 0, kInbound = 1, kOutbound = 2 };

struct PcapngPacket {
  std::uint32_t interface_id = 0;
  std::uint64_t timestamp_ns = 0;  // Since 1970.
  CaptureDirection direction = CaptureDirection::kUnknown;
  std::uint32_t original_bytes = 0;  // On the wire; 0: as many as captured.
  std::string_view comment;
};
// The packet's bytes are the pieces one after the other.
void append_pcapng_packet(std::vector<std::byte>& out, const PcapngPacket& packet,
                          std::span<const std::span<const std::byte>> pieces);

}  // namespace isthmus::wire
