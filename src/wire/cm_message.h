// The messages of the communication manager, which sets up and tears down connections over queue
// pair 1, as values.
//
// Primer: REQ asks for a connection, REP accepts, RTU confirms; REJ refuses; MRA says "received, be
// patient". DREQ and DREP end a connection. LAP and APR load an alternate path. SIDR_REQ and
// SIDR_REP ask for the queue pair behind a service id, for unconnected services.
//
// Times named *_timeout are codes: 4.096 us * 2^code. Field names are those of the specification.
// Input: decode_cm accepts any bytes. Fields narrower than their type are masked, never checked.
// Spec: InfiniBand Architecture vol. 1, chapter 12, tables 106 to 120.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <span>
#include <variant>

#include "wire/decode_error.h"
#include "wire/ip.h"
#include "wire/mad.h"

namespace isthmus::wire {

enum class CmAttribute : std::uint16_t {
  kReq = 0x10,
  kMra = 0x11,
  kRej = 0x12,
  kRep = 0x13,
  kRtu = 0x14,
  kDreq = 0x15,
  kDrep = 0x16,
  kSidrReq = 0x17,
  kSidrRep = 0x18,
  kLap = 0x19,
  kApr = 0x1a,
};

enum class CmTransport : std::uint8_t { kRc = 0, kUc = 1, kRd = 2, kExtended = 3 };

// REQ's extended_transport_type when the transport is kExtended.
inline constexpr std::uint8_t kExtendedTransportXrc = 1;

// Table 109.
enum class RejectReason : std::uint16_t {
  kNoQp = 1,
  kNoEec = 2,
  kNoResources = 3,
  kTimeout = 4,
  kUnsupported = 5,
  kInvalidCommId = 6,
  kInvalidCommInstance = 7,
  kInvalidServiceId = 8,  // Nobody listens; rdma_cm's "connection refused".
  kInvalidTransportType = 9,
  kStaleConnection = 10,
  kRdcDoesNotExist = 11,
  kInvalidGid = 12,
  kInvalidLid = 13,
  kInvalidSl = 14,
  kInvalidTrafficClass = 15,
  kInvalidHopLimit = 16,
  kInvalidPacketRate = 17,
  kInvalidAlternateGid = 18,
  kInvalidAlternateLid = 19,
  kInvalidAlternateSl = 20,
  kInvalidAlternateTrafficClass = 21,
  kInvalidAlternateHopLimit = 22,
  kInvalidAlternatePacketRate = 23,
  kPortAndCmRedirection = 24,
  kPortRedirection = 25,
  kInvalidMtu = 26,
  kInsufficientResponderResources = 27,
  kConsumerReject = 28,  // The program said no; its private data says why.
  kRnrRetryCountReject = 29,
  kDuplicateLocalCommId = 30,
  kInvalidClassVersion = 31,
  kInvalidFlowLabel = 32,
  kInvalidAlternateFlowLabel = 33,
  kVendorOptionNotSupported = 35,
};
const char* to_string(RejectReason reason);

enum class RejectedMessage : std::uint8_t { kReq = 0, kRep = 1, kOther = 2 };
enum class MraMessage : std::uint8_t { kReq = 0, kRep = 1, kLap = 2 };

// Table 121.
enum class SidrStatus : std::uint8_t {
  kSuccess = 0,
  kUnsupported = 1,
  kReject = 2,
  kNoQp = 3,
  kRedirect = 4,
  kUnsupportedVersion = 5,
};

// Table 117.
enum class AprStatus : std::uint8_t {
  kSuccess = 0,
  kInvalidCommId = 1,
  kUnsupported = 2,
  kReject = 3,
  kRedirect = 4,
  kIsCurrent = 5,
  kInvalidQpn = 6,
  kInvalidLid = 7,
  kInvalidGid = 8,
  kInvalidFlowLabel = 9,
  kInvalidTrafficClass = 10,
  kInvalidHopLimit = 11,
  kInvalidPacketRate = 12,
  kInvalidSl = 13,
};

template <std::size_t kSize>
using PrivateData = std::array<std::byte, kSize>;
inline constexpr std::size_t kAdditionalInformationBytes = 72;

// In REQ (primary and alternate) and LAP. For RoCE the LIDs mean nothing; Linux sends 0xffff.
struct CmPath {
  std::uint16_t local_lid = 0;
  std::uint16_t remote_lid = 0;
  IpAddress local_gid;
  IpAddress remote_gid;
  std::uint32_t flow_label = 0;  // 20 bits.
  std::uint8_t reserved = 0;     // 6 bits (LAP: 4) after the flow label.
  std::uint8_t packet_rate = 0;  // 6 bits.
  std::uint8_t traffic_class = 0;
  std::uint8_t hop_limit = 0;
  std::uint8_t sl = 0;  // 4 bits.
  bool subnet_local = false;
  std::uint8_t local_ack_timeout = 0;  // 5 bits.
  friend bool operator==(const CmPath&, const CmPath&) = default;
};

struct CmReq {
  static constexpr CmAttribute kAttribute = CmAttribute::kReq;
  static constexpr std::size_t kPrivateBytes = 92;
  std::uint32_t local_comm_id = 0;
  std::uint64_t service_id = 0;
  std::uint64_t local_ca_guid = 0;
  std::uint32_t local_qkey = 0;
  std::uint32_t local_qpn = 0;  // 24 bits.
  std::uint8_t responder_resources = 0;
  std::uint32_t local_eecn = 0;  // 24 bits.
  std::uint8_t initiator_depth = 0;
  std::uint32_t remote_eecn = 0;                // 24 bits.
  std::uint8_t remote_cm_response_timeout = 0;  // 5 bits.
  CmTransport transport = CmTransport::kRc;
  bool end_to_end_flow_control = false;
  std::uint32_t starting_psn = 0;              // 24 bits.
  std::uint8_t local_cm_response_timeout = 0;  // 5 bits.
  std::uint8_t retry_count = 0;                // 3 bits.
  std::uint16_t pkey = 0xffff;
  std::uint8_t path_mtu = 0;  // 4 bits: 1 is 256 bytes ... 5 is 4096.
  bool rdc_exists = false;
  std::uint8_t rnr_retry_count = 0;  // 3 bits; 7 is forever.
  std::uint8_t max_cm_retries = 0;   // 4 bits.
  bool srq = false;
  std::uint8_t extended_transport_type = 0;  // 3 bits.
  CmPath primary;
  CmPath alternate;  // All zero: there is none.
  bool sap_supported = false;
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmReq&, const CmReq&) = default;
};

struct CmMra {
  static constexpr CmAttribute kAttribute = CmAttribute::kMra;
  static constexpr std::size_t kPrivateBytes = 222;
  std::uint32_t local_comm_id = 0;
  std::uint32_t remote_comm_id = 0;
  MraMessage message_mraed = MraMessage::kReq;
  std::uint8_t service_timeout = 0;  // 5 bits.
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmMra&, const CmMra&) = default;
};

struct CmRej {
  static constexpr CmAttribute kAttribute = CmAttribute::kRej;
  static constexpr std::size_t kPrivateBytes = 148;
  std::uint32_t local_comm_id = 0;
  std::uint32_t remote_comm_id = 0;
  RejectedMessage message_rejected = RejectedMessage::kReq;
  std::uint8_t rejected_info_bytes = 0;  // 7 bits: used bytes of the additional information.
  RejectReason reason = RejectReason::kNoResources;
  PrivateData<kAdditionalInformationBytes> additional_information{};
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmRej&, const CmRej&) = default;
};

struct CmRep {
  static constexpr CmAttribute kAttribute = CmAttribute::kRep;
  static constexpr std::size_t kPrivateBytes = 196;
  std::uint32_t local_comm_id = 0;
  std::uint32_t remote_comm_id = 0;
  std::uint32_t local_qkey = 0;
  std::uint32_t local_qpn = 0;     // 24 bits.
  std::uint32_t local_eecn = 0;    // 24 bits.
  std::uint32_t starting_psn = 0;  // 24 bits.
  std::uint8_t responder_resources = 0;
  std::uint8_t initiator_depth = 0;
  std::uint8_t target_ack_delay = 0;   // 5 bits.
  std::uint8_t failover_accepted = 0;  // 2 bits.
  bool end_to_end_flow_control = false;
  std::uint8_t rnr_retry_count = 0;  // 3 bits.
  bool srq = false;
  std::uint64_t local_ca_guid = 0;
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmRep&, const CmRep&) = default;
};

struct CmRtu {
  static constexpr CmAttribute kAttribute = CmAttribute::kRtu;
  static constexpr std::size_t kPrivateBytes = 224;
  std::uint32_t local_comm_id = 0;
  std::uint32_t remote_comm_id = 0;
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmRtu&, const CmRtu&) = default;
};

struct CmDreq {
  static constexpr CmAttribute kAttribute = CmAttribute::kDreq;
  static constexpr std::size_t kPrivateBytes = 220;
  std::uint32_t local_comm_id = 0;
  std::uint32_t remote_comm_id = 0;
  std::uint32_t remote_qpn = 0;  // 24 bits: the receiver's own queue pair, as a check.
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmDreq&, const CmDreq&) = default;
};

struct CmDrep {
  static constexpr CmAttribute kAttribute = CmAttribute::kDrep;
  static constexpr std::size_t kPrivateBytes = 224;
  std::uint32_t local_comm_id = 0;
  std::uint32_t remote_comm_id = 0;
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmDrep&, const CmDrep&) = default;
};

struct CmLap {
  static constexpr CmAttribute kAttribute = CmAttribute::kLap;
  static constexpr std::size_t kPrivateBytes = 168;
  std::uint32_t local_comm_id = 0;
  std::uint32_t remote_comm_id = 0;
  std::uint32_t remote_qpn = 0;                 // 24 bits.
  std::uint8_t remote_cm_response_timeout = 0;  // 5 bits.
  CmPath alternate;
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmLap&, const CmLap&) = default;
};

struct CmApr {
  static constexpr CmAttribute kAttribute = CmAttribute::kApr;
  static constexpr std::size_t kPrivateBytes = 148;
  std::uint32_t local_comm_id = 0;
  std::uint32_t remote_comm_id = 0;
  std::uint8_t additional_information_bytes = 0;
  AprStatus status = AprStatus::kSuccess;
  PrivateData<kAdditionalInformationBytes> additional_information{};
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmApr&, const CmApr&) = default;
};

struct CmSidrReq {
  static constexpr CmAttribute kAttribute = CmAttribute::kSidrReq;
  static constexpr std::size_t kPrivateBytes = 216;
  std::uint32_t request_id = 0;
  std::uint16_t pkey = 0xffff;
  std::uint64_t service_id = 0;
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmSidrReq&, const CmSidrReq&) = default;
};

struct CmSidrRep {
  static constexpr CmAttribute kAttribute = CmAttribute::kSidrRep;
  static constexpr std::size_t kPrivateBytes = 136;
  std::uint32_t request_id = 0;
  SidrStatus status = SidrStatus::kSuccess;
  std::uint8_t additional_information_bytes = 0;
  std::uint32_t qpn = 0;  // 24 bits.
  std::uint64_t service_id = 0;
  std::uint32_t qkey = 0;
  PrivateData<kAdditionalInformationBytes> additional_information{};
  PrivateData<kPrivateBytes> private_data{};
  friend bool operator==(const CmSidrRep&, const CmSidrRep&) = default;
};

using CmMessage = std::variant<CmReq, CmMra, CmRej, CmRep, CmRtu, CmDreq, CmDrep, CmLap, CmApr,
                               CmSidrReq, CmSidrRep>;

CmAttribute attribute_of(const CmMessage& message);
// "REQ", "SIDR_REP".
const char* name_of(const CmMessage& message);

// `mad` is the 256-byte payload of the UD packet. The transaction id is in decode_mad_header.
std::expected<CmMessage, DecodeError> decode_cm(std::span<const std::byte> mad);

// Writes the whole MAD; what no field covers is zero.
void encode_cm(const CmMessage& message, std::uint64_t transaction_id,
               std::span<std::byte, kMadBytes> out);

}  // namespace isthmus::wire
