// Goal: one CRC from all implementations, the ICRC of known packets, and the recovery of IP IDs
//       without letting damage through.
// Method: every implementation against the tables at every length and alignment; a packet worked
//       out by hand with masks; all 65536 IDs; every single bit flipped.
#include "wire/icrc.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string_view>
#include <vector>

#include "wire/byte_order.h"
#include "wire/crc32.h"
#include "wire/crc32_polynomial.h"
#include "wire/roce_packet.h"

namespace isthmus::wire {
namespace {

std::vector<std::byte> random_bytes(std::mt19937& random, std::size_t count) {
  std::vector<std::byte> bytes(count);
  std::ranges::generate(bytes, [&] { return static_cast<std::byte>(random()); });
  return bytes;
}

TEST(Crc32, HasTheCheckValueOfTheCatalogue) {
  constexpr std::string_view kDigits = "123456789";
  for (const Crc32Implementation& implementation : crc32_implementations()) {
    if (!implementation.supported) continue;
    EXPECT_EQ(~implementation.update(kCrc32Start, std::as_bytes(std::span(kDigits))), 0xcbf4'3926u)
        << implementation.name;
  }
  EXPECT_EQ(~crc32_update(kCrc32Start, std::as_bytes(std::span(kDigits))), 0xcbf4'3926u);
}

TEST(Crc32, IsTheSameFromEveryImplementation) {
  // 600 passes every loop of the widest one: 256 bytes, a second round, and all tails.
  constexpr std::size_t kLongest = 600;
  std::mt19937 random(3);
  for (std::size_t bytes = 0; bytes <= kLongest; ++bytes) {
    const std::vector<std::byte> data = random_bytes(random, bytes);  // Exact, for the sanitizer.
    const auto state = static_cast<std::uint32_t>(random());
    const std::uint32_t expected = crc32_update_tables(state, data);
    for (const Crc32Implementation& implementation : crc32_implementations()) {
      if (!implementation.supported) continue;
      ASSERT_EQ(implementation.update(state, data), expected) << implementation.name << bytes;
    }
  }
  for (const std::size_t bytes : {1024u, 2047u, 4096u, 4144u, 9000u, 65535u}) {
    for (std::size_t offset = 0; offset < 8; ++offset) {
      const std::vector<std::byte> data = random_bytes(random, bytes + offset);
      const std::span<const std::byte> part = std::span(data).subspan(offset);
      const std::uint32_t expected = crc32_update_tables(kCrc32Start, part);
      for (const Crc32Implementation& implementation : crc32_implementations()) {
        if (!implementation.supported) continue;
        ASSERT_EQ(implementation.update(kCrc32Start, part), expected) << implementation.name;
      }
    }
  }
}

TEST(Crc32, ContinuesOverPieces) {
  std::mt19937 random(4);
  const std::vector<std::byte> data = random_bytes(random, 5000);
  const std::uint32_t whole = crc32_update(kCrc32Start, data);
  for (int round = 0; round < 200; ++round) {
    std::uint32_t state = kCrc32Start;
    for (std::span<const std::byte> rest(data); !rest.empty();) {
      const std::size_t bytes = std::min<std::size_t>(rest.size(), random() % 700);
      state = crc32_update(state, rest.first(bytes));
      rest = rest.subspan(bytes);
    }
    ASSERT_EQ(state, whole);
  }
}

TEST(Crc32, AZeroByteMultipliesByXToTheEighth) {
  const std::byte zeros[100] = {};
  const std::uint32_t state = 0x1234'5678;
  EXPECT_EQ(crc32_update_tables(state, zeros), crc32_multiply(state, crc32_x_power(800)));
}

// A UDP payload with a right ICRC at its end.
std::vector<std::byte> sealed(const IcrcFlow& flow, std::mt19937& random, std::size_t bytes,
                              std::uint16_t ip_id) {
  std::vector<std::byte> payload = random_bytes(random, bytes);
  const std::uint32_t sum = icrc(flow, payload, ip_id);
  payload.resize(bytes + kIcrcBytes);
  store_le32(payload.data() + bytes, sum);
  return payload;
}

const IcrcFlow kFlow4{.source = IpAddress::from_v4(0x0a62'000b),
                      .destination = IpAddress::from_v4(0x0a62'000c),
                      .source_port = 0xc123};
const IcrcFlow kFlow6{.source = *IpAddress::parse("fe80::1"),
                      .destination = *IpAddress::parse("2001:db8::2"),
                      .source_port = 0xc123};

TEST(Icrc, CoversIpUdpAndPayloadUnderTheMask) {
  std::mt19937 random(5);
  for (const bool v4 : {true, false}) {
    const IcrcFlow& flow = v4 ? kFlow4 : kFlow6;
    for (const std::size_t bytes : {12u, 16u, 40u, 128u, 132u, 1024u, 4140u}) {
      const std::vector<std::byte> payload = random_bytes(random, bytes);
      // The packet as the wire would have it, with arbitrary values where the mask is.
      std::vector<std::byte> packet(8, std::byte{0xff});
      const auto udp_bytes = static_cast<std::uint16_t>(kUdpBytes + bytes + kIcrcBytes);
      packet.resize(8 + (v4 ? kIpv4Bytes : kIpv6Bytes) + kUdpBytes);
      std::byte* ip = packet.data() + 8;
      std::byte* udp = ip;
      if (v4) {
        udp += encode(Ipv4Header{.total_bytes = static_cast<std::uint16_t>(kIpv4Bytes + udp_bytes),
                                 .id = 0x4567,
                                 .source = flow.source.v4(),
                                 .destination = flow.destination.v4()},
                      ip);
        ip[1] = ip[8] = ip[10] = ip[11] = std::byte{0xff};
      } else {
        udp += encode(Ipv6Header{.traffic_class = 0xff,
                                 .flow_label = 0xf'ffff,
                                 .payload_bytes = udp_bytes,
                                 .hop_limit = 0xff,
                                 .source = flow.source,
                                 .destination = flow.destination},
                      ip);
      }
      encode(UdpHeader{.source_port = 0xc123,
                       .destination_port = 4791,
                       .total_bytes = udp_bytes,
                       .checksum = 0xffff},
             udp);
      const std::size_t bth = packet.size();
      packet.insert(packet.end(), payload.begin(), payload.end());
      packet[bth + 4] = std::byte{0xff};
      EXPECT_EQ(icrc(flow, payload, 0x4567), ~crc32_update_tables(kCrc32Start, packet)) << bytes;
    }
  }
}

TEST(Icrc, IsTheSameInPieces) {
  std::mt19937 random(6);
  const std::vector<std::byte> payload = random_bytes(random, 1500);
  for (const std::size_t header_bytes : {12u, 28u, 44u, 127u, 128u, 129u, 1500u}) {
    const std::span<const std::byte> all(payload);
    std::uint32_t state = icrc_start(kFlow4, all.first(header_bytes), all.size(), 7);
    state = crc32_update(state, all.subspan(header_bytes));
    EXPECT_EQ(icrc_finish(state), icrc(kFlow4, payload, 7)) << header_bytes;
  }
}

TEST(IcrcVerifier, RecoversEveryIpId) {
  std::mt19937 random(7);
  IcrcVerifier verifier;
  std::vector<std::byte> payload = random_bytes(random, 100);
  payload.resize(104);
  for (std::uint32_t id = 0; id < 65536; ++id) {
    const auto ip_id = static_cast<std::uint16_t>(id);
    store_le32(payload.data() + 100, icrc(kFlow4, std::span(payload).first(100), ip_id));
    const IcrcVerdict verdict = verifier.verify(kFlow4, payload);
    ASSERT_EQ(verdict.match, id == 0 ? IcrcMatch::kExact : IcrcMatch::kRecovered) << id;
    ASSERT_EQ(verdict.ip_id, ip_id);
    ASSERT_TRUE(verdict.dont_fragment);
  }
}

TEST(IcrcVerifier, RecoversAtEveryLength) {
  std::mt19937 random(8);
  IcrcVerifier verifier;
  for (std::size_t bytes = kBthBytes; bytes < kMaxRoceBytes; bytes += 4) {
    const auto ip_id = static_cast<std::uint16_t>(random());
    const std::vector<std::byte> payload = sealed(kFlow4, random, bytes, ip_id);
    const IcrcVerdict verdict = verifier.verify(kFlow4, payload);
    ASSERT_TRUE(verdict.accepted()) << bytes;
    ASSERT_EQ(verdict.ip_id, ip_id) << bytes;
    // Expect: the cache changes nothing.
    ASSERT_EQ(verify_icrc(kFlow4, payload).ip_id, ip_id);
    ASSERT_EQ(verifier.verify(kFlow4, payload).ip_id, ip_id);
  }
}

TEST(IcrcVerifier, AcceptsPacketsWithoutDontFragment) {
  // The DF flag is a bit of the covered header, so its effect is that of the same bit in a message
  // of zeros: 0x40 two bytes after the ID, with 14 + 8 + payload bytes behind it.
  std::mt19937 random(9);
  std::vector<std::byte> payload = sealed(kFlow4, random, 64, 0xbeef);
  std::vector<std::byte> flag(1 + kIpv4Bytes - 7 + kUdpBytes + 64);
  flag[0] = std::byte{0x40};
  const std::uint32_t change = crc32_update_tables(0, flag);
  store_le32(payload.data() + 64, load_le32(payload.data() + 64) ^ change);
  const IcrcVerdict verdict = verify_icrc(kFlow4, payload);
  EXPECT_EQ(verdict.match, IcrcMatch::kRecovered);
  EXPECT_EQ(verdict.ip_id, 0xbeef);
  EXPECT_FALSE(verdict.dont_fragment);
}

TEST(IcrcVerifier, SeesEveryFlippedBit) {
  std::mt19937 random(10);
  IcrcVerifier verifier;
  for (const IcrcFlow& flow : {kFlow4, kFlow6}) {
    std::vector<std::byte> payload = sealed(flow, random, 200, 0);
    ASSERT_EQ(verifier.verify(flow, payload).match, IcrcMatch::kExact);
    int taken_for_an_id = 0;
    for (std::size_t bit = 0; bit < payload.size() * 8; ++bit) {
      payload[bit / 8] ^= std::byte{1} << (bit % 8);
      const IcrcVerdict verdict = verifier.verify(flow, payload);
      // FECN, BECN and the reserved bits beside them may change on the way.
      EXPECT_EQ(verdict.match == IcrcMatch::kExact, bit / 8 == 4) << bit;
      if (verdict.match == IcrcMatch::kRecovered) ++taken_for_an_id;
      payload[bit / 8] ^= std::byte{1} << (bit % 8);
    }
    // One in 2^15 looks like another ID: 1632 / 32768 = 0.05 on average.
    EXPECT_LE(taken_for_an_id, flow.source.is_v4() ? 2 : 0);
  }
}

TEST(IcrcVerifier, LetsFewDamagedPacketsThrough) {
  // Random sums: with 15 of 32 bits left to check, 2^-15 of them pass over IPv4; none here over
  // IPv6. Expect: 200000 / 32768 = 6.1 on average; 30 would be 9 standard deviations.
  std::mt19937 random(11);
  IcrcVerifier verifier;
  int passed4 = 0;
  int passed6 = 0;
  std::vector<std::byte> payload = random_bytes(random, 68);
  for (int round = 0; round < 200'000; ++round) {
    store_le32(payload.data() + 64, static_cast<std::uint32_t>(random()));
    passed4 += verifier.verify(kFlow4, payload).accepted() ? 1 : 0;
    passed6 += verifier.verify(kFlow6, payload).accepted() ? 1 : 0;
  }
  EXPECT_LT(passed4, 30);
  EXPECT_EQ(passed6, 0);
}

TEST(IcrcVerifier, RefusesWhatItCannotCheck) {
  std::mt19937 random(12);
  IcrcVerifier verifier;
  // Too short for a BTH, too long for an IP packet, two families.
  EXPECT_FALSE(verifier.verify(kFlow4, {}).accepted());
  EXPECT_FALSE(verifier.verify(kFlow4, random_bytes(random, 15)).accepted());
  EXPECT_FALSE(verifier.verify(kFlow4, std::vector<std::byte>(70'000)).accepted());
  const IcrcFlow mixed{.source = kFlow4.source, .destination = kFlow6.destination};
  EXPECT_FALSE(verifier.verify(mixed, sealed(kFlow4, random, 64, 0)).accepted());
  // A translated address or port.
  IcrcFlow other = kFlow4;
  other.source_port ^= 1;
  EXPECT_FALSE(verifier.verify(other, sealed(kFlow4, random, 64, 0)).accepted());
}

}  // namespace
}  // namespace isthmus::wire
