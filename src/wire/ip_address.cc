// IpAddress: its families and its text forms.
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>

#include "wire/byte_order.h"
#include "wire/ip.h"

namespace isthmus::wire {
namespace {

constexpr std::size_t kV4Offset = 12;
constexpr IpAddress::Bytes kV4Prefix{
    {{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, std::byte{0xff}, std::byte{0xff}, {}, {}, {}, {}}};

// "a.b.c.d", each 0..255 in decimal without leading zeros, nothing after it.
std::optional<std::uint32_t> parse_v4(std::string_view text) {
  std::uint32_t address = 0;
  for (int part = 0; part < 4; ++part) {
    if (part != 0) {
      if (text.empty() || text.front() != '.') return std::nullopt;
      text.remove_prefix(1);
    }
    std::uint8_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{}) return std::nullopt;
    const auto digits = static_cast<std::size_t>(end - text.data());
    if (digits > 1 && text.front() == '0') return std::nullopt;
    text.remove_prefix(digits);
    address = address << 8 | value;
  }
  if (!text.empty()) return std::nullopt;
  return address;
}

// Groups of hexadecimal digits parted by ':', with at most one "::"; the last may be dotted IPv4.
class V6Parser {
 public:
  std::optional<IpAddress> parse(std::string_view text) {
    if (text.starts_with("::")) {
      gap_ = 0;
      text.remove_prefix(2);
    } else if (text.empty() || text.front() == ':') {
      return std::nullopt;
    }
    while (!text.empty()) {
      if (!take_group(text)) return std::nullopt;
    }
    if (gap_ == kNoGap) {
      if (count_ != kGroups) return std::nullopt;
    } else if (count_ == kGroups) {
      return std::nullopt;  // "::" stands for at least one group.
    }
    return assemble();
  }

 private:
  static constexpr std::size_t kGroups = 8;
  static constexpr std::size_t kNoGap = kGroups + 1;

  bool push(std::uint16_t group) {
    if (count_ == kGroups) return false;
    groups_[count_++] = group;
    return true;
  }

  // One group and the ':' or "::" after it.
  bool take_group(std::string_view& text) {
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos && text.find('.') != std::string_view::npos) {
      const std::optional<std::uint32_t> v4 = parse_v4(text);
      text = {};
      return v4 && push(static_cast<std::uint16_t>(*v4 >> 16)) &&
             push(static_cast<std::uint16_t>(*v4));
    }
    const std::string_view digits = text.substr(0, colon);
    std::uint16_t group = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), group, 16);
    if (digits.empty() || digits.size() > 4 || error != std::errc{} ||
        end != digits.data() + digits.size() || !push(group)) {
      return false;
    }
    text.remove_prefix(digits.size());
    if (text.empty()) return true;
    text.remove_prefix(1);
    if (text.empty()) return false;  // A single ':' at the end.
    if (text.front() == ':') {
      if (gap_ != kNoGap) return false;
      gap_ = count_;
      text.remove_prefix(1);
    }
    return true;
  }

  IpAddress assemble() const {
    IpAddress::Bytes bytes{};
    for (std::size_t i = 0; i < count_; ++i) {
      const std::size_t place = i < gap_ ? i : i + kGroups - count_;
      store_be16(bytes.data() + 2 * place, groups_[i]);
    }
    return IpAddress{bytes};
  }

  std::array<std::uint16_t, kGroups> groups_{};
  std::size_t count_ = 0;
  std::size_t gap_ = kNoGap;  // Groups before "::".
};

}  // namespace

IpAddress IpAddress::from_v4(std::uint32_t address) {
  Bytes bytes = kV4Prefix;
  store_be32(bytes.data() + kV4Offset, address);
  return IpAddress{bytes};
}

IpAddress IpAddress::from_v4_bytes(std::span<const std::byte, 4> address) {
  return from_v4(load_be32(address.data()));
}

IpAddress IpAddress::from_bytes(std::span<const std::byte, kBytes> bytes) {
  IpAddress address;
  std::ranges::copy(bytes, address.bytes_.begin());
  return address;
}

std::optional<IpAddress> IpAddress::parse(std::string_view text) {
  if (const std::optional<std::uint32_t> v4 = parse_v4(text)) return from_v4(*v4);
  return V6Parser{}.parse(text);
}

bool IpAddress::is_v4() const {
  return std::memcmp(bytes_.data(), kV4Prefix.data(), kV4Offset) == 0;
}

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes_[kV4Offset] == std::byte{127};
  constexpr Bytes kLoopback{
      {{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}, std::byte{1}}};
  return bytes_ == kLoopback;
}

bool IpAddress::is_multicast() const {
  return is_v4() ? v4() >> 28 == 0xe : bytes_[0] == std::byte{0xff};
}

bool IpAddress::is_link_local() const {
  if (is_v4()) return v4() >> 16 == 0xa9fe;  // 169.254/16
  return (load_be16(bytes_.data()) & 0xffc0) == 0xfe80;
}

std::uint32_t IpAddress::v4() const { return load_be32(bytes_.data() + kV4Offset); }

std::span<const std::byte> IpAddress::header_bytes() const {
  const std::span<const std::byte> all(bytes_);
  return is_v4() ? all.subspan(kV4Offset) : all;
}

std::string IpAddress::to_string() const {
  char text[40];  // Eight groups of four digits, seven colons, the terminator.
  if (is_v4()) {
    const std::uint32_t a = v4();
    std::snprintf(text, sizeof(text), "%u.%u.%u.%u", a >> 24, (a >> 16) & 0xff, (a >> 8) & 0xff,
                  a & 0xff);
    return text;
  }
  // The longest run of zero groups, the first of equals, becomes "::"; a run of one does not.
  std::size_t best = 8;
  std::size_t best_count = 1;
  for (std::size_t i = 0; i < 8; ++i) {
    std::size_t count = 0;
    while (i + count < 8 && load_be16(bytes_.data() + 2 * (i + count)) == 0) ++count;
    if (count > best_count) {
      best = i;
      best_count = count;
    }
  }
  std::string result;
  for (std::size_t i = 0; i < 8;) {
    if (i == best) {
      result += "::";
      i += best_count;
      continue;
    }
    if (i != 0 && !result.ends_with(':')) result += ':';
    std::snprintf(text, sizeof(text), "%x", load_be16(bytes_.data() + 2 * i));
    result += text;
    ++i;
  }
  return result;
}

std::size_t IpAddressHash::operator()(const IpAddress& address) const {
  // Multiply and fold; the low 8 bytes differ between hosts of one network, the high ones between
  // networks.
  const std::uint64_t high = load_le64(address.bytes().data());
  const std::uint64_t low = load_le64(address.bytes().data() + 8);
  const std::uint64_t mixed = (high ^ (low * 0x9e37'79b9'7f4a'7c15u)) * 0xd6e8'feb8'6659'fd93u;
  return mixed ^ (mixed >> 32);
}

}  // namespace isthmus::wire
