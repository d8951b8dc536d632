#include "wire/pcapng.h"

#include <algorithm>

#include "base/assert.h"
#include "wire/byte_order.h"

namespace isthmus::wire {
namespace {

constexpr std::uint32_t kSectionHeaderBlock = 0x0a0d'0d0a;
constexpr std::uint32_t kInterfaceBlock = 1;
constexpr std::uint32_t kEnhancedPacketBlock = 6;
constexpr std::uint32_t kByteOrderMagic = 0x1a2b'3c4d;

constexpr std::uint16_t kOptionEnd = 0;
constexpr std::uint16_t kOptionComment = 1;
constexpr std::uint16_t kSectionApplication = 4;
constexpr std::uint16_t kInterfaceName = 2;
constexpr std::uint16_t kInterfaceDescription = 3;
constexpr std::uint16_t kInterfaceResolution = 9;
constexpr std::uint16_t kPacketFlags = 2;
constexpr std::byte kNanoseconds{9};  // 10^-9.
constexpr std::size_t kMaxOptionBytes = 65535;

// One block: type and length before, the length again after, so that files can be read backwards.
// Every part is padded to 4 bytes.
class Block {
 public:
  Block(std::vector<std::byte>& out, std::uint32_t type) : out_(out), start_(out.size()) {
    add32(type);
    add32(0);
  }

  void add16(std::uint16_t value) {
    std::byte bytes[2];
    store_le16(bytes, value);
    add(bytes);
  }
  void add32(std::uint32_t value) {
    std::byte bytes[4];
    store_le32(bytes, value);
    add(bytes);
  }
  void add(std::span<const std::byte> bytes) {
    out_.insert(out_.end(), bytes.begin(), bytes.end());
  }
  void pad() { out_.resize(start_ + (out_.size() - start_ + 3) / 4 * 4); }

  void option(std::uint16_t code, std::span<const std::byte> value) {
    value = value.first(std::min(value.size(), kMaxOptionBytes));
    add16(code);
    add16(static_cast<std::uint16_t>(value.size()));
    add(value);
    pad();
  }
  void option(std::uint16_t code, std::string_view text) {
    if (!text.empty()) option(code, std::as_bytes(std::span(text)));
  }

  void end() {
    option(kOptionEnd, std::span<const std::byte>{});
    const auto block_bytes = static_cast<std::uint32_t>(out_.size() - start_ + 4);
    add32(block_bytes);
    store_le32(out_.data() + start_ + 4, block_bytes);
  }

 private:
  std::vector<std::byte>& out_;
  std::size_t start_;
};

}  // namespace

void append_pcapng_section(std::vector<std::byte>& out, std::string_view application) {
  Block block(out, kSectionHeaderBlock);
  block.add32(kByteOrderMagic);
  block.add16(1);  // Version 1.0.
  block.add16(0);
  block.add32(0xffff'ffff);  // The section's length, 64 bits: not known.
  block.add32(0xffff'ffff);
  block.option(kSectionApplication, application);
  block.end();
}

void append_pcapng_interface(std::vector<std::byte>& out, const PcapngInterface& interface) {
  Block block(out, kInterfaceBlock);
  block.add16(static_cast<std::uint16_t>(interface.link_type));
  block.add16(0);
  block.add32(interface.snapshot_bytes);
  block.option(kInterfaceName, interface.name);
  block.option(kInterfaceDescription, interface.description);
  block.option(kInterfaceResolution, std::span(&kNanoseconds, 1));
  block.end();
}

void append_pcapng_packet(std::vector<std::byte>& out, const PcapngPacket& packet,
                          std::span<const std::span<const std::byte>> pieces) {
  std::size_t captured_bytes = 0;
  for (const std::span<const std::byte> piece : pieces) captured_bytes += piece.size();
  ISTHMUS_ASSERT(captured_bytes <= 0xffff'ffff);
  const auto captured = static_cast<std::uint32_t>(captured_bytes);

  Block block(out, kEnhancedPacketBlock);
  block.add32(packet.interface_id);
  block.add32(static_cast<std::uint32_t>(packet.timestamp_ns >> 32));
  block.add32(static_cast<std::uint32_t>(packet.timestamp_ns));
  block.add32(captured);
  block.add32(std::max(packet.original_bytes, captured));
  for (const std::span<const std::byte> piece : pieces) block.add(piece);
  block.pad();
  block.option(kOptionComment, packet.comment);
  if (packet.direction != CaptureDirection::kUnknown) {
    std::byte flags[4];
    store_le32(flags, static_cast<std::uint32_t>(packet.direction));
    block.option(kPacketFlags, flags);
  }
  block.end();
}

}  // namespace isthmus::wire
