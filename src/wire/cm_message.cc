#include "wire/cm_message.h"

#include <algorithm>
#include <type_traits>

#include "wire/byte_order.h"

namespace isthmus::wire {
namespace {

// Each message's layout is written once, as a function over `fields`: a reader fills the message, a
// writer the bytes, so the two directions cannot disagree. Offsets are those of the
// specification's tables, from the end of the MAD header; bit 0 is the most significant.

class Reader {
 public:
  explicit Reader(const std::byte* data) : data_(data) {}

  void u8(std::size_t at, std::uint8_t& value) const { value = load_u8(data_ + at); }
  void u16(std::size_t at, std::uint16_t& value) const { value = load_be16(data_ + at); }
  void u24(std::size_t at, std::uint32_t& value) const { value = load_be24(data_ + at); }
  void u32(std::size_t at, std::uint32_t& value) const { value = load_be32(data_ + at); }
  void u64(std::size_t at, std::uint64_t& value) const { value = load_be64(data_ + at); }

  template <class T>
  void bits(std::size_t at, int first_bit, int width, T& value) const {
    value = static_cast<T>((load_u8(data_ + at) >> (8 - first_bit - width)) & ((1 << width) - 1));
  }
  template <class T>
  void bits_of_u32(std::size_t at, int first_bit, int width, T& value) const {
    value =
        static_cast<T>((load_be32(data_ + at) >> (32 - first_bit - width)) & ((1u << width) - 1));
  }
  void reason(std::size_t at, RejectReason& value) const {
    value = static_cast<RejectReason>(load_be16(data_ + at));
  }
  void gid(std::size_t at, IpAddress& value) const {
    value = IpAddress::from_bytes(std::span<const std::byte, 16>(data_ + at, 16));
  }
  template <std::size_t kSize>
  void bytes(std::size_t at, PrivateData<kSize>& value) const {
    std::copy_n(data_ + at, kSize, value.begin());
  }

 private:
  const std::byte* data_;
};

// Onto zeroed bytes.
class Writer {
 public:
  explicit Writer(std::byte* data) : data_(data) {}

  void u8(std::size_t at, std::uint8_t value) const { store_u8(data_ + at, value); }
  void u16(std::size_t at, std::uint16_t value) const { store_be16(data_ + at, value); }
  void u24(std::size_t at, std::uint32_t value) const { store_be24(data_ + at, value); }
  void u32(std::size_t at, std::uint32_t value) const { store_be32(data_ + at, value); }
  void u64(std::size_t at, std::uint64_t value) const { store_be64(data_ + at, value); }

  template <class T>
  void bits(std::size_t at, int first_bit, int width, T value) const {
    const int masked = static_cast<int>(value) & ((1 << width) - 1);
    data_[at] |= std::byte(masked << (8 - first_bit - width));
  }
  template <class T>
  void bits_of_u32(std::size_t at, int first_bit, int width, T value) const {
    const std::uint32_t masked = static_cast<std::uint32_t>(value) & ((1u << width) - 1);
    store_be32(data_ + at, load_be32(data_ + at) | masked << (32 - first_bit - width));
  }
  void reason(std::size_t at, RejectReason value) const {
    store_be16(data_ + at, static_cast<std::uint16_t>(value));
  }
  void gid(std::size_t at, const IpAddress& value) const {
    std::ranges::copy(value.bytes(), data_ + at);
  }
  template <std::size_t kSize>
  void bytes(std::size_t at, const PrivateData<kSize>& value) const {
    std::ranges::copy(value, data_ + at);
  }

 private:
  std::byte* data_;
};

// M is CmReq for a reader and const CmReq for a writer, and so on below.
template <class M, class Message>
concept IsMessage = std::is_same_v<std::remove_const_t<M>, Message>;

// The 44 bytes of a path in REQ, from `at`.
template <class Fields, IsMessage<CmPath> M>
void layout_req_path(Fields fields, std::size_t at, M& path) {
  fields.u16(at, path.local_lid);
  fields.u16(at + 2, path.remote_lid);
  fields.gid(at + 4, path.local_gid);
  fields.gid(at + 20, path.remote_gid);
  fields.bits_of_u32(at + 36, 0, 20, path.flow_label);
  fields.bits_of_u32(at + 36, 20, 6, path.reserved);
  fields.bits_of_u32(at + 36, 26, 6, path.packet_rate);
  fields.u8(at + 40, path.traffic_class);
  fields.u8(at + 41, path.hop_limit);
  fields.bits(at + 42, 0, 4, path.sl);
  fields.bits(at + 42, 4, 1, path.subnet_local);
  fields.bits(at + 43, 0, 5, path.local_ack_timeout);
}

template <class Fields, IsMessage<CmReq> M>
void layout(Fields fields, M& req) {
  fields.u32(0, req.local_comm_id);
  fields.u64(8, req.service_id);
  fields.u64(16, req.local_ca_guid);
  fields.u32(28, req.local_qkey);
  fields.u24(32, req.local_qpn);
  fields.u8(35, req.responder_resources);
  fields.u24(36, req.local_eecn);
  fields.u8(39, req.initiator_depth);
  fields.u24(40, req.remote_eecn);
  fields.bits(43, 0, 5, req.remote_cm_response_timeout);
  fields.bits(43, 5, 2, req.transport);
  fields.bits(43, 7, 1, req.end_to_end_flow_control);
  fields.u24(44, req.starting_psn);
  fields.bits(47, 0, 5, req.local_cm_response_timeout);
  fields.bits(47, 5, 3, req.retry_count);
  fields.u16(48, req.pkey);
  fields.bits(50, 0, 4, req.path_mtu);
  fields.bits(50, 4, 1, req.rdc_exists);
  fields.bits(50, 5, 3, req.rnr_retry_count);
  fields.bits(51, 0, 4, req.max_cm_retries);
  fields.bits(51, 4, 1, req.srq);
  fields.bits(51, 5, 3, req.extended_transport_type);
  layout_req_path(fields, 52, req.primary);
  layout_req_path(fields, 96, req.alternate);
  fields.bits(139, 5, 1, req.sap_supported);
  fields.bytes(140, req.private_data);
}

template <class Fields, IsMessage<CmMra> M>
void layout(Fields fields, M& mra) {
  fields.u32(0, mra.local_comm_id);
  fields.u32(4, mra.remote_comm_id);
  fields.bits(8, 0, 2, mra.message_mraed);
  fields.bits(9, 0, 5, mra.service_timeout);
  fields.bytes(10, mra.private_data);
}

template <class Fields, IsMessage<CmRej> M>
void layout(Fields fields, M& rej) {
  fields.u32(0, rej.local_comm_id);
  fields.u32(4, rej.remote_comm_id);
  fields.bits(8, 0, 2, rej.message_rejected);
  fields.bits(9, 0, 7, rej.rejected_info_bytes);
  fields.reason(10, rej.reason);
  fields.bytes(12, rej.additional_information);
  fields.bytes(84, rej.private_data);
}

template <class Fields, IsMessage<CmRep> M>
void layout(Fields fields, M& rep) {
  fields.u32(0, rep.local_comm_id);
  fields.u32(4, rep.remote_comm_id);
  fields.u32(8, rep.local_qkey);
  fields.u24(12, rep.local_qpn);
  fields.u24(16, rep.local_eecn);
  fields.u24(20, rep.starting_psn);
  fields.u8(24, rep.responder_resources);
  fields.u8(25, rep.initiator_depth);
  fields.bits(26, 0, 5, rep.target_ack_delay);
  fields.bits(26, 5, 2, rep.failover_accepted);
  fields.bits(26, 7, 1, rep.end_to_end_flow_control);
  fields.bits(27, 0, 3, rep.rnr_retry_count);
  fields.bits(27, 3, 1, rep.srq);
  fields.u64(28, rep.local_ca_guid);
  fields.bytes(36, rep.private_data);
}

template <class Fields, IsMessage<CmRtu> M>
void layout(Fields fields, M& rtu) {
  fields.u32(0, rtu.local_comm_id);
  fields.u32(4, rtu.remote_comm_id);
  fields.bytes(8, rtu.private_data);
}

template <class Fields, IsMessage<CmDreq> M>
void layout(Fields fields, M& dreq) {
  fields.u32(0, dreq.local_comm_id);
  fields.u32(4, dreq.remote_comm_id);
  fields.u24(8, dreq.remote_qpn);
  fields.bytes(12, dreq.private_data);
}

template <class Fields, IsMessage<CmDrep> M>
void layout(Fields fields, M& drep) {
  fields.u32(0, drep.local_comm_id);
  fields.u32(4, drep.remote_comm_id);
  fields.bytes(8, drep.private_data);
}

template <class Fields, IsMessage<CmLap> M>
void layout(Fields fields, M& lap) {
  fields.u32(0, lap.local_comm_id);
  fields.u32(4, lap.remote_comm_id);
  fields.u24(12, lap.remote_qpn);
  fields.bits(15, 0, 5, lap.remote_cm_response_timeout);
  fields.u16(20, lap.alternate.local_lid);
  fields.u16(22, lap.alternate.remote_lid);
  fields.gid(24, lap.alternate.local_gid);
  fields.gid(40, lap.alternate.remote_gid);
  fields.bits_of_u32(56, 0, 20, lap.alternate.flow_label);
  fields.bits_of_u32(56, 20, 4, lap.alternate.reserved);
  fields.u8(59, lap.alternate.traffic_class);
  fields.u8(60, lap.alternate.hop_limit);
  fields.bits(61, 2, 6, lap.alternate.packet_rate);
  fields.bits(62, 0, 4, lap.alternate.sl);
  fields.bits(62, 4, 1, lap.alternate.subnet_local);
  fields.bits(63, 0, 5, lap.alternate.local_ack_timeout);
  fields.bytes(64, lap.private_data);
}

template <class Fields, IsMessage<CmApr> M>
void layout(Fields fields, M& apr) {
  fields.u32(0, apr.local_comm_id);
  fields.u32(4, apr.remote_comm_id);
  fields.u8(8, apr.additional_information_bytes);
  fields.bits(9, 0, 8, apr.status);
  fields.bytes(12, apr.additional_information);
  fields.bytes(84, apr.private_data);
}

template <class Fields, IsMessage<CmSidrReq> M>
void layout(Fields fields, M& sidr) {
  fields.u32(0, sidr.request_id);
  fields.u16(4, sidr.pkey);
  fields.u64(8, sidr.service_id);
  fields.bytes(16, sidr.private_data);
}

template <class Fields, IsMessage<CmSidrRep> M>
void layout(Fields fields, M& sidr) {
  fields.u32(0, sidr.request_id);
  fields.bits(4, 0, 8, sidr.status);
  fields.u8(5, sidr.additional_information_bytes);
  fields.u24(8, sidr.qpn);
  fields.u64(12, sidr.service_id);
  fields.u32(20, sidr.qkey);
  fields.bytes(24, sidr.additional_information);
  fields.bytes(96, sidr.private_data);
}

template <class Message>
CmMessage read(const std::byte* data) {
  CmMessage result{std::in_place_type<Message>};
  layout(Reader(data), std::get<Message>(result));
  return result;
}

}  // namespace

std::expected<CmMessage, DecodeError> decode_cm(std::span<const std::byte> mad) {
  const std::expected<MadHeader, DecodeError> header = decode_mad_header(mad);
  if (!header) return std::unexpected(header.error());
  if (header->management_class != kMadClassCm || header->method != kMadMethodSend) {
    return std::unexpected(DecodeError::kUnknownMessage);
  }
  if (header->class_version != kMadClassVersionCm) {
    return std::unexpected(DecodeError::kBadVersion);
  }
  const std::byte* data = mad.data() + kMadHeaderBytes;
  switch (static_cast<CmAttribute>(header->attribute_id)) {
    case CmAttribute::kReq:
      return read<CmReq>(data);
    case CmAttribute::kMra:
      return read<CmMra>(data);
    case CmAttribute::kRej:
      return read<CmRej>(data);
    case CmAttribute::kRep:
      return read<CmRep>(data);
    case CmAttribute::kRtu:
      return read<CmRtu>(data);
    case CmAttribute::kDreq:
      return read<CmDreq>(data);
    case CmAttribute::kDrep:
      return read<CmDrep>(data);
    case CmAttribute::kSidrReq:
      return read<CmSidrReq>(data);
    case CmAttribute::kSidrRep:
      return read<CmSidrRep>(data);
    case CmAttribute::kLap:
      return read<CmLap>(data);
    case CmAttribute::kApr:
      return read<CmApr>(data);
  }
  return std::unexpected(DecodeError::kUnknownMessage);
}

void encode_cm(const CmMessage& message, std::uint64_t transaction_id,
               std::span<std::byte, kMadBytes> out) {
  std::ranges::fill(out, std::byte{0});
  encode(MadHeader{.transaction_id = transaction_id,
                   .attribute_id = static_cast<std::uint16_t>(attribute_of(message))},
         out.data());
  std::visit([&](const auto& m) { layout(Writer(out.data() + kMadHeaderBytes), m); }, message);
}

CmAttribute attribute_of(const CmMessage& message) {
  return std::visit([](const auto& m) { return m.kAttribute; }, message);
}

const char* name_of(const CmMessage& message) {
  switch (attribute_of(message)) {
    case CmAttribute::kReq:
      return "REQ";
    case CmAttribute::kMra:
      return "MRA";
    case CmAttribute::kRej:
      return "REJ";
    case CmAttribute::kRep:
      return "REP";
    case CmAttribute::kRtu:
      return "RTU";
    case CmAttribute::kDreq:
      return "DREQ";
    case CmAttribute::kDrep:
      return "DREP";
    case CmAttribute::kSidrReq:
      return "SIDR_REQ";
    case CmAttribute::kSidrRep:
      return "SIDR_REP";
    case CmAttribute::kLap:
      return "LAP";
    case CmAttribute::kApr:
      return "APR";
  }
  return "unknown";
}

}  // namespace isthmus::wire
