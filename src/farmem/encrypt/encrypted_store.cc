#include "farmem/encrypt/encrypted_store.h"

#include <array>

#include "base/assert.h"
#include "os/address_range.h"
#include "os/random.h"

namespace isthmus::farmem {
namespace {

// 4 PiB written by each of 16 million processes.
constexpr std::uint64_t kNumbersOfRange = std::uint64_t{1} << 40;

// A frame here and the frame of the same number below belong together.
class EncryptedChannel final : public StoreChannel {
 public:
  EncryptedChannel(EncryptedStore& store, std::unique_ptr<StoreChannel> below,
                   std::unique_ptr<PageCipher> cipher,
                   std::unique_ptr<os::AnonymousMemory> staging)
      : store_(store),
        below_(std::move(below)),
        cipher_(std::move(cipher)),
        staging_(std::move(staging)) {}

  std::span<std::byte> staging() const override {
    return {staging_->data(), staging_->size()};
  }
  bool staging_may_be_remapped() const override { return true; }  // The device sees the other.

  void read(SlotRun from, std::byte* to, std::uint64_t ticket) override {
    const std::uint32_t frame = frame_of(to);
    const auto index = remember({.slots = from, .frame = frame, .ticket = ticket, .in = true});
    below_->read(from, frame_below(frame), index);
  }

  void write(SlotRun to, const std::byte* from, std::uint64_t ticket) override {
    const std::uint32_t frame = frame_of(from);
    for (std::uint32_t page = 0; page < to.count; ++page) {
      store_.seal_of(to.first + page) = cipher_->seal(
          store_.next_number(), from + page * os::kPageBytes, frame_below(frame + page));
    }
    const auto index = remember({.slots = to, .frame = frame, .ticket = ticket, .in = false});
    below_->write(to, frame_below(frame), index);
  }

  std::size_t poll(std::span<StoreCompletion> completions) override {
    const std::size_t count = below_->poll(completions);
    for (StoreCompletion& completion : completions.first(count)) {
      Transfer& transfer = transfers_[completion.ticket];
      completion.ticket = transfer.ticket;
      if (transfer.in && completion.verdict == StoreVerdict::kDone && !open(transfer)) {
        completion.verdict = StoreVerdict::kLost;
      }
      transfer.used = false;
    }
    return count;
  }

 private:
  struct Transfer {
    SlotRun slots{};
    std::uint32_t frame = 0;
    std::uint64_t ticket = 0;
    bool in = false;
    bool used = false;
  };

  bool open(const Transfer& transfer) {
    for (std::uint32_t page = 0; page < transfer.slots.count; ++page) {
      const std::uint32_t frame = transfer.frame + page;
      if (!cipher_->open(store_.seal_of(transfer.slots.first + page), frame_below(frame),
                         staging_->data() + frame * os::kPageBytes)) {
        return false;
      }
    }
    return true;
  }

  std::uint32_t frame_of(const std::byte* bytes) const {
    return static_cast<std::uint32_t>(static_cast<std::size_t>(bytes - staging_->data()) /
                                      os::kPageBytes);
  }
  std::byte* frame_below(std::uint32_t frame) const {
    return below_->staging().data() + frame * os::kPageBytes;
  }

  // At most kMostUnderWay are, so that a free place is near.
  std::uint64_t remember(Transfer transfer) {
    while (transfers_[next_].used) next_ = (next_ + 1) % transfers_.size();
    transfer.used = true;
    transfers_[next_] = transfer;
    return next_;
  }

  EncryptedStore& store_;
  std::unique_ptr<StoreChannel> below_;
  std::unique_ptr<PageCipher> cipher_;
  std::unique_ptr<os::AnonymousMemory> staging_;
  std::array<Transfer, kMostUnderWay> transfers_{};
  std::size_t next_ = 0;
};

}  // namespace

Result<std::unique_ptr<EncryptedStore>> EncryptedStore::create(std::unique_ptr<Store> below) {
  PageCipher::Key key{};
  os::fill_random(key);
  auto seals = ISTHMUS_TRY(os::AnonymousMemory::create(below->slot_count() * sizeof(PageSeal)));
  auto ranges = ISTHMUS_TRY(os::AnonymousMemory::create_shared(sizeof(std::uint64_t)));
  return std::unique_ptr<EncryptedStore>(new EncryptedStore({.below = std::move(below),
                                                             .seals = std::move(seals),
                                                             .ranges = std::move(ranges),
                                                             .key = key}));
}

// The seals of shared slots, which nobody changes, came along.
Result<std::unique_ptr<Store>> EncryptedStore::join_in_child() {
  auto below = ISTHMUS_TRY(below_->join_in_child());
  return std::unique_ptr<Store>(new EncryptedStore(
      {.below = std::move(below), .seals = seals_, .ranges = ranges_, .key = key_}));
}

EncryptedStore::EncryptedStore(Parts parts)
    : below_(std::move(parts.below)),
      seals_(std::move(parts.seals)),
      ranges_(std::move(parts.ranges)),
      key_(parts.key),
      numbers_(draw_range() * kNumbersOfRange) {}

std::uint64_t EncryptedStore::draw_range() const {
  // SAFETY: zeroed, aligned memory of this size, which children share.
  auto* drawn = reinterpret_cast<std::atomic<std::uint64_t>*>(ranges_->data());
  return drawn->fetch_add(1, std::memory_order_relaxed);
}

std::uint64_t EncryptedStore::next_number() {
  const std::uint64_t number = numbers_.fetch_add(1, std::memory_order_relaxed) + 1;
  // The first of another range is nobody's.
  ISTHMUS_ASSERT(number % kNumbersOfRange != 0);
  return number;
}

Result<std::unique_ptr<StoreChannel>> EncryptedStore::open_channel(std::uint32_t frames) {
  auto below = ISTHMUS_TRY(below_->open_channel(frames));
  auto cipher = ISTHMUS_TRY(PageCipher::create(key_));
  auto staging = ISTHMUS_TRY(os::AnonymousMemory::create(frames * os::kPageBytes));
  return std::unique_ptr<StoreChannel>(new EncryptedChannel(
      *this, std::move(below), std::move(cipher), std::move(staging)));
}

}  // namespace isthmus::farmem
