// Goal: pcap files of every kind are read, damaged ones refused; pcapng blocks are well formed.
// Method: small files written out here; the blocks walked by their lengths, forwards and backwards.
#include "wire/pcap.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "wire/byte_order.h"
#include "wire/pcapng.h"

namespace isthmus::wire {
namespace {

enum class Endian { kLittle, kBig };

void add32(std::vector<std::byte>& out, Endian endian, std::uint32_t value) {
  std::byte bytes[4];
  endian == Endian::kLittle ? store_le32(bytes, value) : store_be32(bytes, value);
  out.insert(out.end(), bytes, bytes + 4);
}

std::vector<std::byte> small_file(Endian endian, std::uint32_t magic) {
  std::vector<std::byte> file;
  for (const std::uint32_t word : {magic, 0x0004'0002u, 0u, 0u, 65535u, kLinkTypeEthernet}) {
    add32(file, endian, word);
  }
  for (std::uint32_t packet = 0; packet < 2; ++packet) {
    for (const std::uint32_t word : {1000u + packet, 250u, 3u, 60u}) add32(file, endian, word);
    file.insert(file.end(), 3, static_cast<std::byte>(packet));
  }
  return file;
}

TEST(Pcap, ReadsBothOrdersAndResolutions) {
  for (const Endian endian : {Endian::kLittle, Endian::kBig}) {
    for (const auto& [magic, fraction_ns] :
         {std::pair(0xa1b2'c3d4u, 250'000u), std::pair(0xa1b2'3c4du, 250u)}) {
      const std::vector<std::byte> file = small_file(endian, magic);
      auto reader = PcapReader::create(file);
      ASSERT_TRUE(reader.has_value());
      EXPECT_EQ(reader->link_type(), kLinkTypeEthernet);
      for (std::uint64_t packet = 0; packet < 2; ++packet) {
        const auto read = reader->next();
        ASSERT_TRUE(read.has_value() && read->has_value());
        EXPECT_EQ((*read)->timestamp_ns, (1000 + packet) * 1'000'000'000 + fraction_ns);
        EXPECT_EQ((*read)->original_bytes, 60u);
        ASSERT_EQ((*read)->data.size(), 3u);
        EXPECT_EQ((*read)->data[2], static_cast<std::byte>(packet));
      }
      const auto end = reader->next();
      EXPECT_TRUE(end.has_value() && !end->has_value());
    }
  }
}

TEST(Pcap, IgnoresTheCheckSequenceBitsOfTheLinkType) {
  std::vector<std::byte> file = small_file(Endian::kLittle, 0xa1b2'c3d4);
  file[23] = std::byte{0x44};  // Frames end with a check sequence of 4 bytes.
  auto reader = PcapReader::create(file);
  ASSERT_TRUE(reader.has_value());
  EXPECT_EQ(reader->link_type(), kLinkTypeEthernet);
}

TEST(Pcap, RefusesDamagedFiles) {
  const std::vector<std::byte> whole = small_file(Endian::kLittle, 0xa1b2'c3d4);
  const std::size_t second = 24 + 16 + 3;
  for (std::size_t bytes = 0; bytes < whole.size(); ++bytes) {
    const std::vector<std::byte> cut(whole.begin(), whole.begin() + static_cast<long>(bytes));
    auto reader = PcapReader::create(cut);
    ASSERT_EQ(reader.has_value(), bytes >= 24) << bytes;
    if (!reader) continue;
    std::size_t packets = 0;
    auto read = reader->next();
    for (; read && *read; read = reader->next()) ++packets;
    EXPECT_EQ(packets, bytes >= second ? 1u : 0u) << bytes;
    EXPECT_EQ(read.has_value(), bytes == 24 || bytes == second) << "a cut between packets is none";
  }
  std::vector<std::byte> other = whole;
  other[0] = std::byte{0x0a};
  EXPECT_EQ(PcapReader::create(other).error(), DecodeError::kBadMagic);
}

struct Block {
  std::uint32_t type;
  std::vector<std::byte> body;
};

// Checks both length fields of each block on the way.
std::vector<Block> blocks_of(std::span<const std::byte> file) {
  std::vector<Block> blocks;
  while (!file.empty()) {
    EXPECT_GE(file.size(), 12u);
    const std::uint32_t bytes = load_le32(file.data() + 4);
    EXPECT_EQ(bytes % 4, 0u);
    EXPECT_LE(bytes, file.size());
    if (file.size() < 12 || bytes < 12 || bytes > file.size()) return blocks;
    EXPECT_EQ(load_le32(file.data() + bytes - 4), bytes);
    blocks.push_back({load_le32(file.data()), {file.begin() + 8, file.begin() + bytes - 4}});
    file = file.subspan(bytes);
  }
  return blocks;
}

// The value of an option, or nothing.
std::string option_of(std::span<const std::byte> options, std::uint16_t wanted) {
  while (options.size() >= 4) {
    const std::uint16_t code = load_le16(options.data());
    const std::uint16_t bytes = load_le16(options.data() + 2);
    if (code == 0) break;
    if (code == wanted) {
      const auto value = options.subspan(4, bytes);
      std::string text;
      for (const std::byte b : value) text += static_cast<char>(b);
      return text;
    }
    options = options.subspan(4 + (bytes + 3u) / 4 * 4);
  }
  return "";
}

TEST(Pcapng, WritesWellFormedBlocks) {
  std::vector<std::byte> file;
  append_pcapng_section(file, "isthmus capture");
  append_pcapng_interface(file, {.name = "isthmus0", .description = "memory channel"});
  const std::vector<std::byte> head(3, std::byte{1});
  const std::vector<std::byte> tail(4, std::byte{2});
  const std::span<const std::byte> pieces[] = {head, tail};
  append_pcapng_packet(file,
                       {.interface_id = 0,
                        .timestamp_ns = 0x1234'5678'9abc'def0,
                        .direction = CaptureDirection::kOutbound,
                        .comment = "QP 17"},
                       pieces);

  const std::vector<Block> blocks = blocks_of(file);
  ASSERT_EQ(blocks.size(), 3u);
  EXPECT_EQ(blocks[0].type, 0x0a0d'0d0au);
  EXPECT_EQ(load_le32(blocks[0].body.data()), 0x1a2b'3c4du);
  EXPECT_EQ(option_of(std::span(blocks[0].body).subspan(16), 4), "isthmus capture");
  EXPECT_EQ(blocks[1].type, 1u);
  EXPECT_EQ(option_of(std::span(blocks[1].body).subspan(8), 2), "isthmus0");
  EXPECT_EQ(option_of(std::span(blocks[1].body).subspan(8), 3), "memory channel");
  EXPECT_EQ(option_of(std::span(blocks[1].body).subspan(8), 9), "\x09") << "nanoseconds";
  const std::vector<std::byte>& packet = blocks[2].body;
  EXPECT_EQ(blocks[2].type, 6u);
  EXPECT_EQ(load_le32(&packet[4]), 0x1234'5678u);
  EXPECT_EQ(load_le32(&packet[8]), 0x9abc'def0u);
  EXPECT_EQ(load_le32(&packet[12]), 7u) << "captured";
  EXPECT_EQ(load_le32(&packet[16]), 7u) << "on the wire";
  EXPECT_EQ(packet[22], std::byte{1});
  EXPECT_EQ(packet[23], std::byte{2});
  EXPECT_EQ(option_of(std::span(packet).subspan(28), 1), "QP 17");
  EXPECT_EQ(option_of(std::span(packet).subspan(28), 2), std::string("\x02\0\0\0", 4));
}

TEST(Pcapng, CutsOptionsThatDoNotFitTheirLength) {
  std::vector<std::byte> file;
  const std::string comment(70'000, 'x');
  append_pcapng_packet(file, {.comment = comment}, {});
  const std::vector<Block> blocks = blocks_of(file);
  ASSERT_EQ(blocks.size(), 1u);
  EXPECT_EQ(option_of(std::span(blocks[0].body).subspan(20), 1).size(), 65535u);
}

TEST(Pcapng, PadsPacketsOfEveryLength) {
  for (std::size_t bytes = 0; bytes < 9; ++bytes) {
    std::vector<std::byte> file;
    const std::vector<std::byte> data(bytes, std::byte{0xab});
    const std::span<const std::byte> pieces[] = {data};
    append_pcapng_packet(file, {.original_bytes = 100}, pieces);
    const std::vector<Block> blocks = blocks_of(file);
    ASSERT_EQ(blocks.size(), 1u);
    EXPECT_EQ(load_le32(&blocks[0].body[12]), bytes);
    EXPECT_EQ(load_le32(&blocks[0].body[16]), 100u);
  }
}

}  // namespace
}  // namespace isthmus::wire
