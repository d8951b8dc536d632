#include "rdmacm/stream_core.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/assert.h"

namespace isthmus::rdmacm {
namespace {

// A send begins with a small write and doubles, so that the wire works while the rest is copied.
constexpr std::uint32_t kFirstPieceBytes = 2048;
constexpr std::uint32_t kLargestPieceBytes = 65536;
// Less room than this and sending waits: many tiny writes cost more than a moment.
constexpr std::uint32_t kLeastRoomBytes = 2048;

Target swapped(const Target& target) {
  return {.address = __builtin_bswap64(target.address),
          .key = __builtin_bswap32(target.key),
          .length = __builtin_bswap32(target.length)};
}

// Sequence numbers wrap; a difference below half the circle is "at or past".
bool reached(std::uint16_t value, std::uint16_t mark) {
  return static_cast<std::int16_t>(static_cast<std::uint16_t>(value - mark)) >= 0;
}

ibv_sge segment_of(const std::byte* bytes, std::size_t count, std::uint32_t key) {
  // SAFETY: verbs names memory by number.
  return {.addr = reinterpret_cast<std::uint64_t>(bytes),
          .length = static_cast<std::uint32_t>(count),
          .lkey = key};
}

}  // namespace

std::size_t StreamCore::list_bytes(const StreamSizes& sizes) {
  return kTargetCount * sizeof(Target) + sizes.iomap_count * sizeof(IomapEntry);
}

StreamCore::StreamCore(const StreamSizes& sizes, const StreamMemory& memory, StreamPort& port)
    : sizes_(sizes), memory_(memory), port_(port) {
  ISTHMUS_ASSERT(sizes.send_queue > kControlSlots && sizes.send_bytes >= kLeastRoomBytes);
  std::memset(memory_.lists, 0, list_bytes(sizes));
}

ConnectData StreamCore::offer() const {
  ConnectData data;
  data.flags = kFlagIomap;
  if constexpr (std::endian::native == std::endian::big) data.flags |= kFlagBigEndian;
  data.credits = sizes_.receive_queue;
  data.iomap_count = sizes_.iomap_count;
  const auto lists = segment_of(memory_.lists, 0, 0);
  data.target_list = {
      .address = lists.addr, .key = memory_.lists_key, .length = kTargetCount};
  const auto buffer = segment_of(memory_.receive, 0, 0);
  data.buffer = {.address = buffer.addr,
                 .key = memory_.receive_key,
                 .length = sizes_.receive_bytes / 2};
  return data;
}

void StreamCore::open(const ConnectData& peer) {
  constexpr bool kWeAreBig = std::endian::native == std::endian::big;
  swap_ = ((peer.flags & kFlagBigEndian) != 0) != kWeAreBig;
  peer_targets_ = peer.target_list;
  peer_iomap_ = {.address = peer.target_list.address + peer.target_list.length * sizeof(Target),
                 .key = peer.target_list.key,
                 .length = peer.iomap_count};
  target_ = peer.buffer;
  messages_allowed_ = peer.credits;
  // The first half is in our offer; the second is free to be the next target.
  free_position_ = sizes_.receive_bytes / 2;
  free_bytes_ = sizes_.receive_bytes / 2;
  credit_due_ = sizes_.receive_queue / 2;
  open_ = readable_ = writable_ = true;
}

bool StreamCore::can_send() const {
  return open_ && writable_ && writes_in_flight_ + kControlSlots < sizes_.send_queue &&
         send_room() >= kLeastRoomBytes && messages_sent_ != messages_allowed_ &&
         target_.length != 0;
}

// Puts the bytes where they stay until the write is done: with inline sends, where they are.
StreamCore::Piece StreamCore::stage(std::span<const std::byte> data) {
  Piece piece{};
  piece.inlined = data.size() <= sizes_.inline_bytes;
  if (piece.inlined) {
    piece.segments[piece.count++] = segment_of(data.data(), data.size(), 0);
  } else {
    const std::size_t to_end = std::min<std::size_t>(data.size(),
                                                     sizes_.send_bytes - send_position_);
    std::memcpy(memory_.send + send_position_, data.data(), to_end);
    piece.segments[piece.count++] =
        segment_of(memory_.send + send_position_, to_end, memory_.send_key);
    if (to_end < data.size()) {
      std::memcpy(memory_.send, data.data() + to_end, data.size() - to_end);
      piece.segments[piece.count++] =
          segment_of(memory_.send, data.size() - to_end, memory_.send_key);
    }
  }
  // An inline write takes its share of the ring too: the tag gives it back the same way.
  const auto bytes = static_cast<std::uint32_t>(data.size());
  send_position_ = (send_position_ + bytes) % sizes_.send_bytes;
  send_used_ += bytes;
  return piece;
}

void StreamCore::use_target(std::uint32_t bytes) {
  target_.address += bytes;
  target_.length -= bytes;
  if (target_.length != 0) return;
  target_index_ = (target_index_ + 1) % kTargetCount;
  load_target();
}

void StreamCore::load_target() {
  if (target_.length != 0 || targets_announced_ == 0) return;
  --targets_announced_;
  std::memcpy(&target_, memory_.lists + target_index_ * sizeof(Target), sizeof target_);
}

Result<std::size_t> StreamCore::send(std::span<const std::byte> data) {
  std::size_t taken = 0;
  std::uint32_t largest = kFirstPieceBytes;
  while (taken < data.size() && can_send()) {
    const auto bytes = static_cast<std::uint32_t>(std::min<std::size_t>(
        {data.size() - taken, largest, send_room(), target_.length}));
    largest = std::min(largest * 2, kLargestPieceBytes);
    const Piece piece = stage(data.subspan(taken, bytes));
    const StreamWrite write{.segments = std::span{piece.segments}.first(piece.count),
                            .inlined = piece.inlined,
                            .address = target_.address,
                            .key = target_.key,
                            .immediate = make_message(StreamOp::kData, bytes),
                            .tag = make_message(StreamOp::kData, bytes)};
    ++messages_sent_;
    ++writes_in_flight_;
    // Before the write leaves: the peer may fill the entry anew as soon as it arrives.
    use_target(bytes);
    ISTHMUS_TRY_VOID(port_.write(write));
    taken += bytes;
  }
  return taken;
}

std::size_t StreamCore::receive(std::span<std::byte> into, Peek peek) {
  std::size_t given = 0;
  std::uint32_t position = read_position_;
  std::size_t message = 0;
  while (given < into.size() && message < messages_.size()) {
    const auto bytes = static_cast<std::uint32_t>(
        std::min<std::size_t>(into.size() - given, messages_[message]));
    const std::uint32_t to_end = std::min(bytes, sizes_.receive_bytes - position);
    std::memcpy(into.data() + given, memory_.receive + position, to_end);
    std::memcpy(into.data() + given + to_end, memory_.receive, bytes - to_end);
    position = (position + bytes) % sizes_.receive_bytes;
    given += bytes;
    if (peek == Peek::kYes) {
      ++message;
      continue;
    }
    messages_.front() -= bytes;
    if (messages_.front() == 0) {
      messages_.pop_front();
      ++messages_read_;
    }
  }
  if (peek == Peek::kYes) return given;
  read_position_ = position;
  unread_bytes_ -= static_cast<std::uint32_t>(given);
  free_bytes_ += static_cast<std::uint32_t>(given);
  return given;
}

IomapEntry StreamCore::iomap_entry(std::uint32_t index) const {
  IomapEntry entry;
  std::memcpy(&entry,
              memory_.lists + kTargetCount * sizeof(Target) + index * sizeof(IomapEntry),
              sizeof entry);
  return entry;
}

Result<std::size_t> StreamCore::write_mapped(std::span<const std::byte> data,
                                             std::uint64_t offset) {
  std::size_t taken = 0;
  std::uint32_t largest = kFirstPieceBytes;
  while (taken < data.size() && can_send()) {
    const std::uint64_t at = offset + taken;
    std::optional<IomapEntry> found;
    for (std::uint32_t i = 0; i < sizes_.iomap_count && !found; ++i) {
      const IomapEntry entry = iomap_entry(i);
      if (at >= entry.offset && at - entry.offset < entry.target.length) found = entry;
    }
    if (!found && taken == 0) return fail(ErrorCode::kNotFound, "no mapping has that offset");
    if (!found) break;
    const std::uint64_t skip = at - found->offset;
    const auto bytes = static_cast<std::uint32_t>(std::min<std::uint64_t>(
        {data.size() - taken, largest, send_room(), found->target.length - skip}));
    largest = std::min(largest * 2, kLargestPieceBytes);
    const Piece piece = stage(data.subspan(taken, bytes));
    ++writes_in_flight_;
    ISTHMUS_TRY_VOID(port_.write({.segments = std::span{piece.segments}.first(piece.count),
                                  .inlined = piece.inlined,
                                  .address = found->target.address + skip,
                                  .key = found->target.key,
                                  .immediate = std::nullopt,
                                  .tag = make_message(StreamOp::kDirectWrite, bytes)}));
    taken += bytes;
  }
  return taken;
}

Result<void> StreamCore::announce_mapping(std::uint32_t index, const IomapEntry& entry) {
  ISTHMUS_ASSERT(index < peer_iomap_.length && can_send());
  IomapEntry sent = entry;
  if (swap_) {
    sent.offset = __builtin_bswap64(sent.offset);
    sent.target = swapped(sent.target);
  }
  const Piece piece = stage(std::as_bytes(std::span{&sent, 1}));
  ++messages_sent_;
  ++writes_in_flight_;
  return port_.write({.segments = std::span{piece.segments}.first(piece.count),
                      .inlined = piece.inlined,
                      .address = peer_iomap_.address + index * sizeof(IomapEntry),
                      .key = peer_iomap_.key,
                      .immediate = make_message(StreamOp::kIomap, index),
                      .tag = make_message(StreamOp::kIomap, sizeof sent)});
}

Result<void> StreamCore::control(StreamControl what) {
  ISTHMUS_ASSERT(can_control());
  ++control_in_flight_;
  const std::uint32_t message =
      make_message(StreamOp::kControl, static_cast<std::uint32_t>(what));
  return port_.write({.segments = {}, .immediate = message, .tag = message});
}

Result<void> StreamCore::shut(ShutWhat what) {
  const bool was_readable = readable_;
  if (what != ShutWhat::kSend) readable_ = false;
  if (what != ShutWhat::kReceive) writable_ = false;
  // The peer is told that no more data comes, and nothing while data may come.
  if (writable_) return {};
  const bool half = what == ShutWhat::kSend && was_readable;
  return control(half ? StreamControl::kShutdown : StreamControl::kDisconnect);
}

Result<void> StreamCore::send_keepalive() { return control(StreamControl::kKeepalive); }

void StreamCore::hang_up() { open_ = readable_ = writable_ = false; }

void StreamCore::close(int error) {
  if (!open_) return;
  error_ = error;
  hang_up();
}

void StreamCore::on_received(std::uint32_t immediate, std::uint32_t bytes) {
  ++receives_to_post_;
  const std::uint32_t data = data_of(immediate);
  switch (op_of(immediate)) {
    case StreamOp::kData:
      if (data == 0) return;
      if (data > sizes_.receive_bytes - unread_bytes_ || messages_.size() > sizes_.receive_queue) {
        close(EPROTO);
        return;
      }
      messages_.push_back(data);
      unread_bytes_ += data;
      return;
    case StreamOp::kCredit:
      messages_allowed_ = static_cast<std::uint16_t>(data);
      if (bytes < sizeof(Target)) return;
      if (targets_announced_ == kTargetCount) {
        close(EPROTO);
        return;
      }
      ++targets_announced_;
      load_target();
      return;
    case StreamOp::kIomap:
      ++messages_read_;  // It took a credit; the entry itself is in the list already.
      return;
    case StreamOp::kControl:
      if (data == static_cast<std::uint32_t>(StreamControl::kDisconnect)) hang_up();
      if (data == static_cast<std::uint32_t>(StreamControl::kShutdown)) {
        readable_ = false;
        if (!writable_) hang_up();
      }
      return;
    default:
      return;
  }
}

void StreamCore::on_sent(std::uint32_t tag, bool succeeded) {
  switch (op_of(tag)) {
    case StreamOp::kCredit:
      --control_in_flight_;
      break;
    case StreamOp::kControl:
      --control_in_flight_;
      if (data_of(tag) == static_cast<std::uint32_t>(StreamControl::kDisconnect)) hang_up();
      break;
    default:
      --writes_in_flight_;
      send_used_ -= data_of(tag);
      break;
  }
  if (!succeeded) close(EIO);
}

Result<void> StreamCore::give_credit() {
  credit_due_ = static_cast<std::uint16_t>(messages_read_ + sizes_.receive_queue / 2);
  ++control_in_flight_;
  const std::uint32_t credit = std::uint32_t{messages_read_} + sizes_.receive_queue;
  const std::uint32_t message = make_message(StreamOp::kCredit, credit);
  const std::uint32_t half = sizes_.receive_bytes / 2;
  if (free_bytes_ < half) {
    return port_.write({.segments = {}, .immediate = message, .tag = message});
  }

  const auto buffer = segment_of(memory_.receive + free_position_, half, 0);
  Target target{.address = buffer.addr, .key = memory_.receive_key, .length = half};
  if (swap_) target = swapped(target);
  const bool inlined = sizeof target <= sizes_.inline_bytes;
  const std::byte* from = std::as_bytes(std::span{&target, 1}).data();
  if (!inlined) {
    std::byte* const slot = memory_.send + sizes_.send_bytes + control_next_ * sizeof target;
    control_next_ = (control_next_ + 1) % kControlSlots;
    std::memcpy(slot, &target, sizeof target);
    from = slot;
  }
  const ibv_sge segment = segment_of(from, sizeof target, inlined ? 0 : memory_.send_key);
  const std::uint64_t place = peer_targets_.address + peer_target_index_ * sizeof(Target);
  peer_target_index_ = (peer_target_index_ + 1) % peer_targets_.length;
  free_bytes_ -= half;
  free_position_ = (free_position_ + half) % sizes_.receive_bytes;
  return port_.write({.segments = {&segment, 1},
                      .inlined = inlined,
                      .address = place,
                      .key = peer_targets_.key,
                      .immediate = message,
                      .tag = message});
}

Result<void> StreamCore::settle() {
  if (!open_) return {};
  while (receives_to_post_ > 0) {
    ISTHMUS_TRY_VOID(port_.post_receive());
    --receives_to_post_;
  }
  const auto due = [&] {
    return free_bytes_ >= sizes_.receive_bytes / 2 || reached(messages_read_, credit_due_);
  };
  while (due() && can_control()) ISTHMUS_TRY_VOID(give_credit());
  return {};
}

}  // namespace isthmus::rdmacm
