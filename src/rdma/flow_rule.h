// FlowRule: which Ethernet frames a raw packet queue pair gets.
//
// A frame is read once into a fixed row of its header fields. A rule is such a row and a mask over
// it: it matches when every bit under the mask is equal. That a layer is there at all is a field
// too, so a rule for TCP ports does not match the bytes of a UDP header.
//
// Input: frames come from the wire; any bytes are possible, and none is read past the frame's end.
// Spec: IEEE 802.3, 802.1Q, RFC 791, 8200; the rules are those of ibv_create_flow(3).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace isthmus::rdma {

// Fields as they stand in the headers, in the network's order; zero where the frame has none.
struct FlowFields {
  template <std::size_t kCount>
  using Bytes = std::array<std::byte, kCount>;

  Bytes<6> dst_mac{};
  Bytes<6> src_mac{};
  Bytes<2> ether_type{};   // Behind the VLAN tags.
  Bytes<2> vlan_tag{};     // Of the outer tag: priority, drop eligible, VLAN ID.
  Bytes<16> src_ip{};      // IPv4 in the first four.
  Bytes<16> dst_ip{};
  Bytes<4> flow_label{};   // The lower 20 bits.
  Bytes<2> src_port{};
  Bytes<2> dst_port{};
  std::byte protocol{};    // The one behind the extension headers of IPv6.
  std::byte traffic_class{};
  std::byte hop_limit{};
  // Which layers there are.
  std::byte is_tagged{};   // 1: has a VLAN tag.
  std::byte ip_version{};  // 4, 6 or 0.
  std::byte transport{};   // 6 or 17: TCP or UDP, with ports; 0: another one, or a later fragment.
  Bytes<2> unused{};
  friend bool operator==(const FlowFields&, const FlowFields&) = default;
};
static_assert(sizeof(FlowFields) == 64, "compared as eight words, without gaps");

FlowFields flow_fields_of(std::span<const std::byte> frame);

// Where a rule stands: rules of an earlier class come first, then those of a smaller priority.
enum class FlowClass : std::uint8_t { kNormal, kDefault };

struct FlowRule {
  FlowFields value;  // Zero where the mask is.
  FlowFields mask;
  FlowClass order = FlowClass::kNormal;
  std::uint16_t priority = 0;
  bool drops = false;         // The frame goes nowhere.
  bool goes_on = false;       // Later rules may have the frame too.
  friend bool operator==(const FlowRule&, const FlowRule&) = default;

  bool matches(const FlowFields& fields) const;
  bool is_before(const FlowRule& other) const;
};

}  // namespace isthmus::rdma
