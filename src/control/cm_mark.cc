#include "control/cm_mark.h"

#include <algorithm>
#include <bit>

#include "wire/byte_order.h"

namespace isthmus::control {
namespace {

constexpr std::size_t kModifierOffset = 20;  // Of the MAD header's attribute modifier.
constexpr std::size_t kModifierBytes = 4;

struct SipState {
  std::uint64_t v0, v1, v2, v3;

  void round() {
    v0 += v1;
    v1 = std::rotl(v1, 13) ^ v0;
    v0 = std::rotl(v0, 32);
    v2 += v3;
    v3 = std::rotl(v3, 16) ^ v2;
    v0 += v3;
    v3 = std::rotl(v3, 21) ^ v0;
    v2 += v1;
    v1 = std::rotl(v1, 17) ^ v2;
    v2 = std::rotl(v2, 32);
  }
  void take(std::uint64_t word) {
    v3 ^= word;
    round();
    round();
    v0 ^= word;
  }
};

}  // namespace

std::uint64_t siphash(const ClusterKey& key, std::span<const std::byte> bytes) {
  const std::uint64_t k0 = wire::load_le64(key.data());
  const std::uint64_t k1 = wire::load_le64(key.data() + 8);
  SipState state{.v0 = k0 ^ 0x736f'6d65'7073'6575,
                 .v1 = k1 ^ 0x646f'7261'6e64'6f6d,
                 .v2 = k0 ^ 0x6c79'6765'6e65'7261,
                 .v3 = k1 ^ 0x7465'6462'7974'6573};
  std::uint64_t last = static_cast<std::uint64_t>(bytes.size()) << 56;
  while (bytes.size() >= 8) {
    state.take(wire::load_le64(bytes.data()));
    bytes = bytes.subspan(8);
  }
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    last |= static_cast<std::uint64_t>(wire::load_u8(bytes.data() + i)) << (8 * i);
  }
  state.take(last);
  state.v2 ^= 0xff;
  for (int i = 0; i < 4; ++i) state.round();
  return state.v0 ^ state.v1 ^ state.v2 ^ state.v3;
}

ClusterKey cluster_key_of(std::string_view secret) {
  const std::size_t end = secret.find_last_not_of(" \t\r\n");
  secret = secret.substr(0, end == std::string_view::npos ? 0 : end + 1);
  ClusterKey key{};
  for (std::size_t half = 0; half < 2; ++half) {
    // Two fixed keys give two independent halves.
    ClusterKey label{};
    label[0] = std::byte{static_cast<std::uint8_t>(half + 1)};
    wire::store_le64(key.data() + 8 * half,
                     siphash(label, std::as_bytes(std::span{secret.data(), secret.size()})));
  }
  return key;
}

std::uint32_t CmMark::mark_of(const wire::IpAddress& source, const wire::IpAddress& destination,
                              std::span<const std::byte, wire::kMadBytes> mad) const {
  std::array<std::byte, 2 * wire::IpAddress::kBytes + wire::kMadBytes> covered;
  auto end = std::ranges::copy(source.bytes(), covered.begin()).out;
  end = std::ranges::copy(destination.bytes(), end).out;
  const auto mad_start = end;
  std::ranges::copy(mad, end);
  std::fill_n(mad_start + kModifierOffset, kModifierBytes, std::byte{0});
  const auto mark = static_cast<std::uint32_t>(siphash(*key_, covered));
  return mark != 0 ? mark : 1;  // 0 means "no mark".
}

void CmMark::stamp(const wire::IpAddress& source, const wire::IpAddress& destination,
                   std::span<std::byte, wire::kMadBytes> mad) const {
  const std::uint32_t mark = key_ ? mark_of(source, destination, mad) : 0;
  wire::store_be32(mad.data() + kModifierOffset, mark);
}

MarkVerdict CmMark::judge(const wire::IpAddress& source, const wire::IpAddress& destination,
                          std::span<const std::byte, wire::kMadBytes> mad) const {
  const std::uint32_t found = wire::load_be32(mad.data() + kModifierOffset);
  if (found == 0 || !key_) return MarkVerdict::kForeign;
  return found == mark_of(source, destination, mad) ? MarkVerdict::kMarked : MarkVerdict::kForged;
}

}  // namespace isthmus::control
