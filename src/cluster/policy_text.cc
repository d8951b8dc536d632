#include "cluster/policy_text.h"

#include <charconv>
#include <optional>
#include <utility>

#include "wire/ip.h"

namespace isthmus::cluster {
namespace {

constexpr unsigned kIpv4PrefixBits = 96;  // ::ffff:0:0/96 holds the IPv4 addresses.

constexpr std::size_t kMaxQuotedBytes = 80;  // Enough to recognise the place in a document.

// Digits alone, no sign, nothing after them.
std::optional<unsigned> parse_number(std::string_view text) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<std::uint16_t> parse_port(std::string_view text) {
  const std::optional<unsigned> value = parse_number(text);
  if (!value || *value == 0 || *value > 0xffff) return std::nullopt;
  return static_cast<std::uint16_t>(*value);
}

// The address with every bit after the first `bits` cleared.
Gid masked(const Gid& address, unsigned bits) {
  Gid result{};
  for (std::size_t i = 0; i < result.size(); ++i) {
    const unsigned kept = bits >= 8 * (i + 1) ? 8 : bits <= 8 * i ? 0 : bits - 8 * i;
    result[i] = address[i] & static_cast<std::byte>(0xff00u >> kept);
  }
  return result;
}

// A TOML basic string. The parser lets in printable ASCII only, so two characters need a mark.
std::string toml_string(std::string_view text) {
  std::string result = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c;
  }
  return result + "\"";
}

std::string toml_list(const std::vector<std::string>& items) {
  std::string text = "[";
  for (const std::string& item : items) {
    if (text.size() > 1) text += ", ";
    text += item;
  }
  return text + "]";
}

// The list of what `to_text` makes of each value.
template <class List, class ToText>
std::string toml_list(const List& values, ToText to_text) {
  std::vector<std::string> items;
  for (const auto& value : values) items.push_back(to_text(value));
  return toml_list(items);
}

std::string quoted_prefix(const GidPrefix& prefix) { return toml_string(to_string(prefix)); }

std::string toml_side(const EndpointPattern& side, const std::vector<PortRange>& ports) {
  std::string text;
  const auto add = [&](std::string_view key, const std::string& list) {
    text += text.empty() ? " " : ", ";
    text += std::string(key) + " = " + list;
  };
  if (!side.labels.empty()) add("label", toml_list(side.labels, toml_string));
  if (!side.gids.empty()) add("gid", toml_list(side.gids, quoted_prefix));
  if (!ports.empty()) {
    add("port", toml_list(ports, [](PortRange range) {
          return range.first == range.last ? to_string(range) : toml_string(to_string(range));
        }));
  }
  return text.empty() ? "" : "{" + text + " }";
}

// The words for the one-sided rights, after `words`. SEND has none: it is what "connect" gives.
std::string toml_rights(Rights rights, std::vector<std::string> words) {
  for (const auto& [right, word] :
       {std::pair{Right::kRead, "read"}, std::pair{Right::kWrite, "write"},
        std::pair{Right::kAtomic, "atomic"}}) {
    if (rights.has(right)) words.push_back(toml_string(word));
  }
  return toml_list(words);
}

std::string toml_rule(const PolicyRule& rule) {
  std::string text = "\n[[rule]]\nname = " + toml_string(rule.name) + "\n";
  const std::string from = toml_side(rule.from, {});
  const std::string to = toml_side(rule.to, rule.ports);
  if (!from.empty()) text += "from = " + from + "\n";
  if (!to.empty()) text += "to = " + to + "\n";
  if (rule.transports != TransportSet::all()) {
    std::vector<Transport> named;
    for (std::size_t i = 0; i < kTransportCount; ++i) {
      if (rule.transports.has(static_cast<Transport>(i))) named.push_back(Transport(i));
    }
    text +=
        "transport = " + toml_list(named, [](Transport t) { return toml_string(to_string(t)); }) +
        "\n";
  }
  if (rule.decision == Decision::kDeny) return text + "deny = true\n";
  text += "allow = " + toml_rights(rule.forward, {toml_string("connect")}) + "\n";
  if (rule.backward != rule.forward) {
    text += "allow_back = " + toml_rights(rule.backward, {}) + "\n";
  }
  return text;
}

}  // namespace

Result<GidPrefix> parse_gid_prefix(std::string_view text) {
  const std::size_t slash = text.find('/');
  const std::string_view address_text = text.substr(0, slash);
  const std::optional<wire::IpAddress> address = wire::IpAddress::parse(address_text);
  if (!address) {
    return fail(ErrorCode::kInvalid,
                "found %s, which is no address; write one like \"10.0.0.0/8\" or \"fd00::/64\"",
                in_quotes(text).c_str());
  }
  // By how it is written: "::ffff:10.0.0.0/104" counts the bits of IPv6.
  const bool written_as_v4 = !address_text.contains(':');
  const unsigned most = written_as_v4 ? 32 : 128;
  unsigned bits = most;
  if (slash != std::string_view::npos) {
    const std::optional<unsigned> written = parse_number(text.substr(slash + 1));
    if (!written || *written > most) {
      return fail(ErrorCode::kInvalid,
                  "found %s, whose prefix length is not 0 to %u; write how many leading bits count",
                  in_quotes(text).c_str(), most);
    }
    bits = *written;
  }
  GidPrefix prefix;
  prefix.bits = static_cast<std::uint8_t>(written_as_v4 ? bits + kIpv4PrefixBits : bits);
  prefix.address = masked(address->bytes(), prefix.bits);
  if (prefix.address != address->bytes()) {
    return fail(ErrorCode::kInvalid,
                "found %s, which has bits set after its prefix; write \"%s\" for the network or "
                "\"%s\" for the one address",
                in_quotes(text).c_str(), to_string(prefix).c_str(), address->to_string().c_str());
  }
  return prefix;
}

std::string to_string(const GidPrefix& prefix) {
  const wire::IpAddress address{prefix.address};
  if (prefix.bits == kGidBits) return address.to_string();
  // The ffff of an IPv4 address lies in its first 96 bits, so a shorter prefix is never IPv4.
  const unsigned bits = address.is_v4() ? prefix.bits - kIpv4PrefixBits : prefix.bits;
  return address.to_string() + "/" + std::to_string(bits);
}

Result<PortRange> parse_port_range(std::string_view text) {
  const std::size_t dash = text.find('-');
  const std::optional<std::uint16_t> first = parse_port(text.substr(0, dash));
  const std::optional<std::uint16_t> last =
      dash == std::string_view::npos ? first : parse_port(text.substr(dash + 1));
  if (!first || !last) {
    return fail(ErrorCode::kInvalid,
                "found %s, which is no port; write a port from 1 to 65535 or a range like "
                "\"8000-8100\"",
                in_quotes(text).c_str());
  }
  if (*first > *last) {
    return fail(ErrorCode::kInvalid, "found %s, which ends before it begins; write \"%u-%u\"",
                in_quotes(text).c_str(), unsigned{*last}, unsigned{*first});
  }
  return PortRange{*first, *last};
}

std::string to_string(PortRange range) {
  const std::string first = std::to_string(range.first);
  return range.first == range.last ? first : first + "-" + std::to_string(range.last);
}

std::string in_quotes(std::string_view text) {
  std::string safe = "'";
  for (char c : text.substr(0, kMaxQuotedBytes)) safe += c < ' ' || c > '~' ? '?' : c;
  return safe + (text.size() > kMaxQuotedBytes ? "...'" : "'");
}

std::string place_in(std::string_view document_name, std::size_t line, std::size_t column) {
  return std::string(document_name) + ":" + std::to_string(line) + ":" + std::to_string(column) +
         ": ";
}

std::string format_policy(const PolicyDocument& document) {
  std::string text;
  if (document.default_decision) {
    const bool allows = *document.default_decision == Decision::kAllow;
    text += std::string("default = ") + (allows ? "\"allow\"" : "\"deny\"") + "\n";
  }
  if (!document.require_mark.empty()) {
    text += "require_mark = " + toml_list(document.require_mark, quoted_prefix) + "\n";
  }
  for (const PolicyRule& rule : document.rules) text += toml_rule(rule);
  return text;
}

}  // namespace isthmus::cluster
