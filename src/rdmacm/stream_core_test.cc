// Goal: bytes arrive once and in order, whatever the sizes, and neither end ever waits for itself.
// Method: two cores whose ports move bytes between their memories; completions are handed out by
// the test, in any order of the two ends.
#include "rdmacm/stream_core.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <random>

namespace isthmus::rdmacm {
namespace {

// One end with its memory; writes land in the peer at once, completions wait in queues.
class End : public StreamPort {
 public:
  explicit End(const StreamSizes& sizes) : sizes_(sizes) {
    send_.resize(sizes.send_bytes + StreamCore::kControlBytes);
    receive_.resize(sizes.receive_bytes);
    lists_.resize(StreamCore::list_bytes(sizes));
    core_ = std::make_unique<StreamCore>(sizes,
                                         StreamMemory{.send = send_.data(),
                                                      .send_key = 1,
                                                      .receive = receive_.data(),
                                                      .receive_key = 2,
                                                      .lists = lists_.data(),
                                                      .lists_key = 3},
                                         *this);
    receives_posted_ = sizes.receive_queue;
  }

  Result<void> write(const StreamWrite& write) override {
    ++sends_in_flight_;
    EXPECT_LE(sends_in_flight_, sizes_.send_queue);
    std::uint32_t bytes = 0;
    for (const ibv_sge& segment : write.segments) {
      EXPECT_EQ(segment.lkey, write.inlined ? 0u : 1u);
      peer_->check_target(write.address + bytes, segment.length, write.key);
      std::memcpy(reinterpret_cast<void*>(write.address + bytes),
                  reinterpret_cast<const void*>(segment.addr), segment.length);
      bytes += segment.length;
    }
    if (write.immediate) peer_->arrivals_.push_back({*write.immediate, bytes});
    sent_.push_back(write.tag);
    return {};
  }

  Result<void> post_receive() override {
    ++receives_posted_;
    EXPECT_LE(receives_posted_, sizes_.receive_queue);
    return {};
  }

  // A peer writes only where it was told to.
  void check_target(std::uint64_t address, std::uint32_t bytes, std::uint32_t key) const {
    const auto inside = [&](const std::vector<std::byte>& memory) {
      const auto begin = reinterpret_cast<std::uint64_t>(memory.data());
      return address >= begin && address + bytes <= begin + memory.size();
    };
    EXPECT_TRUE((key == 2 && inside(receive_)) || (key == 3 && inside(lists_)) ||
                (key == 4 && inside(mapped_)));
  }

  // Hands out what has completed. False: nothing had.
  bool turn() {
    if (sent_.empty() && (arrivals_.empty() || receives_posted_ == 0)) return false;
    for (; !sent_.empty(); sent_.pop_front()) {
      --sends_in_flight_;
      core_->on_sent(sent_.front(), true);
    }
    while (!arrivals_.empty() && receives_posted_ > 0) {
      const Arrival arrival = arrivals_.front();
      arrivals_.pop_front();
      --receives_posted_;
      core_->on_received(arrival.immediate, arrival.bytes);
    }
    EXPECT_TRUE(core_->settle());
    return true;
  }

  struct Arrival {
    std::uint32_t immediate;
    std::uint32_t bytes;
  };

  StreamSizes sizes_;
  std::vector<std::byte> send_, receive_, lists_, mapped_;
  std::unique_ptr<StreamCore> core_;
  End* peer_ = nullptr;
  std::deque<Arrival> arrivals_;
  std::deque<std::uint32_t> sent_;
  std::uint32_t receives_posted_ = 0;
  std::uint32_t sends_in_flight_ = 0;
};

struct Pair {
  explicit Pair(const StreamSizes& sizes = {}) : a(sizes), b(sizes) {
    a.peer_ = &b;
    b.peer_ = &a;
    a.core_->open(b.core_->offer());
    b.core_->open(a.core_->offer());
    EXPECT_TRUE(a.core_->settle());
    EXPECT_TRUE(b.core_->settle());
    run();
  }
  void run() {
    while (a.turn() || b.turn()) {
    }
  }
  End a, b;
};

std::vector<std::byte> pattern(std::size_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(count);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
  return bytes;
}

TEST(StreamCore, ConnectDataKeepsItsFields) {
  ConnectData data;
  data.flags = kFlagIomap;
  data.credits = 384;
  data.iomap_count = 512;
  data.target_list = {.address = 0x1122334455667788, .key = 7, .length = 2};
  data.buffer = {.address = 0x99, .key = 8, .length = 65536};
  const auto bytes = encode(data);
  // The layout that Linux's rsockets read: version, flags, credits in network order.
  EXPECT_EQ(bytes[0], std::byte{1});
  EXPECT_EQ(bytes[2], std::byte{1});
  EXPECT_EQ(bytes[3], std::byte{0x80});
  EXPECT_EQ(bytes[8], std::byte{0x11});
  const auto back = decode_connect_data(bytes);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->credits, 384);
  EXPECT_EQ(back->iomap_count, 512u);
  EXPECT_EQ(back->target_list.address, data.target_list.address);
  EXPECT_EQ(back->buffer.length, 65536u);
}

TEST(StreamCore, ConnectDataRefusesWhatItIsNot) {
  auto bytes = encode(ConnectData{.target_list = {.length = 2}});
  EXPECT_TRUE(decode_connect_data(bytes));
  EXPECT_EQ(decode_connect_data(std::span{bytes}.first(39)).error().code, ErrorCode::kInvalid);
  bytes[0] = std::byte{2};
  EXPECT_EQ(decode_connect_data(bytes).error().code, ErrorCode::kUnsupported);
  EXPECT_FALSE(decode_connect_data(encode(ConnectData{.target_list = {.length = 1}})));
  EXPECT_FALSE(decode_connect_data(encode(ConnectData{.target_list = {.length = 65}})));
}

TEST(StreamCore, AShortMessageArrives) {
  Pair pair;
  const auto data = pattern(10, 1);
  ASSERT_EQ(*pair.a.core_->send(data), 10u);
  pair.run();
  std::vector<std::byte> got(20);
  // Peeking leaves it there; reading in two parts takes it.
  EXPECT_EQ(pair.b.core_->receive(got, Peek::kYes), 10u);
  EXPECT_EQ(pair.b.core_->receive(std::span{got}.first(4), Peek::kNo), 4u);
  EXPECT_EQ(pair.b.core_->receive(std::span{got}.subspan(4), Peek::kNo), 6u);
  EXPECT_TRUE(std::equal(data.begin(), data.end(), got.begin()));
  EXPECT_FALSE(pair.b.core_->has_data());
}

TEST(StreamCore, ManyBytesBothWaysInOddSizes) {
  for (const std::uint32_t inline_bytes : {0u, 64u}) {
    Pair pair({.send_queue = 16,
               .receive_queue = 16,
               .send_bytes = 4096,
               .receive_bytes = 8192,
               .inline_bytes = inline_bytes});
    const auto data = pattern(300'000, 2);
    std::mt19937 random(3);
    std::size_t sent[2] = {}, read[2] = {};
    End* const ends[2] = {&pair.a, &pair.b};
    std::vector<std::byte> got(5000);
    int idle = 0;
    while (read[0] < data.size() || read[1] < data.size()) {
      bool moved = false;
      for (int i = 0; i < 2; ++i) {
        const std::size_t most = std::min<std::size_t>(1 + random() % 5000, data.size() - sent[i]);
        const auto count = ends[i]->core_->send(std::span{data}.subspan(sent[i], most));
        ASSERT_TRUE(count);
        sent[i] += *count;
        moved = moved || *count > 0;
        moved = ends[random() % 2]->turn() || moved;
        const std::size_t size =
            ends[i]->core_->receive(std::span{got}.first(1 + random() % 5000), Peek::kNo);
        ASSERT_TRUE(std::equal(got.begin(), got.begin() + static_cast<long>(size),
                               data.begin() + static_cast<long>(read[i])));
        read[i] += size;
        moved = moved || size > 0;
        ASSERT_TRUE(ends[i]->core_->settle());
      }
      idle = moved ? 0 : idle + 1;
      ASSERT_LT(idle, 100) << "both ends wait";
    }
  }
}

TEST(StreamCore, AReaderThatSleepsStopsTheSender) {
  Pair pair({.send_queue = 32, .receive_queue = 32, .send_bytes = 8192, .receive_bytes = 8192});
  const auto data = pattern(100'000, 4);
  std::size_t sent = 0;
  for (int i = 0; i < 100; ++i) {
    sent += *pair.a.core_->send(std::span{data}.subspan(sent));
    pair.run();
  }
  // Expect: as much as the receive buffer holds, not a byte more.
  EXPECT_EQ(sent, 8192u);
  EXPECT_FALSE(pair.a.core_->can_send());
  std::vector<std::byte> got(8192);
  EXPECT_EQ(pair.b.core_->receive(got, Peek::kNo), 8192u);
  EXPECT_TRUE(pair.b.core_->settle());
  pair.run();
  EXPECT_TRUE(pair.a.core_->can_send());
}

TEST(StreamCore, TinyMessagesStopAtTheCredit) {
  Pair pair({.send_queue = 64, .receive_queue = 16, .send_bytes = 8192, .receive_bytes = 8192});
  const std::byte byte{1};
  std::size_t sent = 0;
  for (int i = 0; i < 100; ++i) {
    sent += *pair.a.core_->send({&byte, 1});
    pair.run();
  }
  EXPECT_EQ(sent, 16u);
  std::vector<std::byte> got(64);
  EXPECT_EQ(pair.b.core_->receive(got, Peek::kNo), 16u);
  ASSERT_TRUE(pair.b.core_->settle());
  pair.run();
  EXPECT_TRUE(pair.a.core_->can_send());
}

TEST(StreamCore, ShuttingOneWayLeavesTheOther) {
  Pair pair;
  ASSERT_TRUE(pair.a.core_->shut(ShutWhat::kSend));
  pair.run();
  EXPECT_FALSE(pair.b.core_->readable());
  EXPECT_TRUE(pair.b.core_->writable());
  EXPECT_TRUE(pair.a.core_->readable());
  const std::byte byte{9};
  ASSERT_EQ(*pair.b.core_->send({&byte, 1}), 1u);
  pair.run();
  EXPECT_TRUE(pair.a.core_->has_data());
  ASSERT_TRUE(pair.b.core_->shut(ShutWhat::kSend));
  pair.run();
  // Both have said goodbye. What was sent can still be read.
  EXPECT_FALSE(pair.a.core_->is_open());
  EXPECT_FALSE(pair.b.core_->is_open());
  std::byte got{};
  EXPECT_EQ(pair.a.core_->receive({&got, 1}, Peek::kNo), 1u);
  EXPECT_EQ(got, byte);
}

TEST(StreamCore, MappedMemoryIsWrittenInPlace) {
  Pair pair({.iomap_count = 4});
  ASSERT_EQ(pair.a.core_->peer_iomap_count(), 4u);
  pair.b.mapped_.resize(10'000);
  const IomapEntry entry{
      .offset = 1000,
      .target = {.address = reinterpret_cast<std::uint64_t>(pair.b.mapped_.data()),
                 .key = 4,
                 .length = 10'000}};
  ASSERT_TRUE(pair.b.core_->announce_mapping(2, entry));
  pair.run();
  const auto data = pattern(6000, 5);
  ASSERT_EQ(*pair.a.core_->write_mapped(data, 3000), 6000u);
  EXPECT_TRUE(std::equal(data.begin(), data.end(), pair.b.mapped_.begin() + 2000));
  // Outside of it: nothing there.
  EXPECT_EQ(pair.a.core_->write_mapped(data, 11'000).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(pair.a.core_->write_mapped(data, 999).error().code, ErrorCode::kNotFound);
}

TEST(StreamCore, APeerThatLiesIsCutOff) {
  Pair pair;
  // More data than the receive buffer has.
  pair.b.core_->on_received(make_message(StreamOp::kData, (1u << 17) + 1), 0);
  EXPECT_EQ(pair.b.core_->error(), EPROTO);
  EXPECT_FALSE(pair.b.core_->is_open());

  // More targets than the list holds.
  Pair other;
  for (int i = 0; i < 4; ++i) {
    other.a.core_->on_received(make_message(StreamOp::kCredit, 500), sizeof(Target));
  }
  EXPECT_EQ(other.a.core_->error(), EPROTO);
}

TEST(StreamCore, AFailedWriteEndsIt) {
  Pair pair;
  const std::byte byte{1};
  ASSERT_EQ(*pair.a.core_->send({&byte, 1}), 1u);
  pair.a.core_->on_sent(pair.a.sent_.front(), false);
  EXPECT_EQ(pair.a.core_->error(), EIO);
  EXPECT_FALSE(pair.a.core_->writable());
}

TEST(StreamCore, CountsOfMappingsScale) {
  EXPECT_EQ(iomap_count_of(iomap_scale_of(0)), 0u);
  EXPECT_EQ(iomap_count_of(iomap_scale_of(128)), 128u);
  EXPECT_EQ(iomap_count_of(iomap_scale_of(1000)), 768u);  // Down to a step of 256.
}

}  // namespace
}  // namespace isthmus::rdmacm
