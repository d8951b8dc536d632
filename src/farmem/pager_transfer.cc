// Transfers between staging frames and the store: starting them, and what their end means.
#include "base/assert.h"
#include "farmem/pager.h"
#include "os/process.h"

namespace isthmus::farmem {
namespace {

constexpr std::uint32_t kPollsPerYield = 64;

// What a ticket says: which frames, and which way.
constexpr std::uint64_t kOutBit = std::uint64_t{1} << 63;
constexpr std::uint32_t kFrameShift = 32;

}  // namespace

// The frames are to be used anew: whatever they still hold is in its slot.
void Pager::empty(Frames::Run run) {
  for (std::uint32_t index = run.first; index < run.first + run.count; ++index) {
    Frame& frame = frames_->at(index);
    if (frame.page != Frame::kNobody) {
      ISTHMUS_ASSERT(frame.state == FrameState::kHolding);
      table_->set_state(frame.page, PageState::kRemote);
      --stats_.pages_staged;
      ++stats_.pages_remote;
    }
    frame = Frame{};
  }
  if (moves_pages_ && run.first >= frames_->count() / 2) {
    // SAFETY: an address for the kernel. A page can only be moved to where none is.
    const os::AddressRange range{reinterpret_cast<std::uint64_t>(frames_->bytes(run.first)),
                                 std::uint64_t{run.count} * os::kPageBytes};
    drop_.drop(std::span(&range, 1));
  }
}

void Pager::start(Direction direction, SlotRun slots, std::uint32_t frame) {
  // The channel takes no more at once; those before this one are nearly done.
  while (under_way_ == StoreChannel::kMostUnderWay) poll();
  ++under_way_;
  const std::uint64_t ticket = std::uint64_t{frame} << kFrameShift | slots.count;
  if (direction == Direction::kIn) {
    channel_->read(slots, frames_->bytes(frame), ticket);
  } else {
    slots_->begin_write(frame, slots);
    channel_->write(slots, frames_->bytes(frame), ticket | kOutBit);
  }
}

void Pager::wait(Guard& guard) {
  const std::uint32_t before = under_way_;
  poll();
  if (under_way_ != before) return;
  guard.unlock();
  if (++idle_polls_ % kPollsPerYield == 0) os::yield_processor();
  guard.lock();
}

void Pager::poll() {
  std::array<StoreCompletion, 16> completions;
  const std::size_t count = channel_->poll(completions);
  for (std::size_t index = 0; index < count; ++index) finish(completions[index]);
}

void Pager::finish(StoreCompletion completion) {
  const bool out = (completion.ticket & kOutBit) != 0;
  const auto first = static_cast<std::uint32_t>((completion.ticket & ~kOutBit) >> kFrameShift);
  const auto count = static_cast<std::uint32_t>(completion.ticket);
  ISTHMUS_ASSERT(under_way_ > 0 && first + count <= frames_->count());
  --under_way_;
  const bool lost = completion.verdict == StoreVerdict::kLost;
  if (out) slots_->end_write(first);
  if (lost && out) lost_ = true;
  for (std::uint32_t index = first; index < first + count; ++index) {
    Frame& frame = frames_->at(index);
    ISTHMUS_ASSERT(frame.state == (out ? FrameState::kLeaving : FrameState::kArriving));
    if (frame.page == Frame::kNobody) {
      frame.state = FrameState::kFree;
      continue;
    }
    if (!lost) {
      frame.state = FrameState::kHolding;
      continue;
    }
    table_->set_state(frame.page, PageState::kLost);
    --stats_.pages_staged;
    ++stats_.pages_remote;
    frame = Frame{};
  }
}

}  // namespace isthmus::farmem
