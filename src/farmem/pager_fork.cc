// fork(): what parent and child do around it, and how the child joins the store.
#include "base/assert.h"
#include "base/log.h"
#include "farmem/pager.h"
#include "os/clock.h"

namespace isthmus::farmem {

static_assert(kStagingFrames <= kMostWriters, "each frame may have a write of its own under way");

// Slots of pages whose contents are elsewhere or nowhere: whoever needs some may have them.
void Pager::drop_idle_slots() {
  while (under_way_ > 0) poll();
  for (PageIndex index = 0; index < page_count(); ++index) {
    const PageState state = table_->state(index);
    if (state == PageState::kEmpty || state == PageState::kDirty) slots_->drop(index);
  }
}

void Pager::before_fork() {
  bool joined = false;
  {
    const os::SignalBlock block;
    const Guard guard(lock_);
    joined = channel_ != nullptr;
  }
  // Without the lock: a node is asked. Whoever has not joined itself forks children that must do so
  // as early.
  if (joined) {
    const std::uint64_t patience_ns = store_->expect_child();
    join_by_ns_ = patience_ns == Store::kNoHurry ? patience_ns : os::now_ns() + patience_ns;
  }
  fork_block_.emplace();
  lock_.lock();
  drop_idle_slots();
  slots_->forget_dead_members();
  slots_->before_fork();
}

void Pager::after_fork_in_parent() {
  slots_->after_fork_in_parent();
  lock_.unlock();
  fork_block_.reset();
}

Result<void> Pager::after_fork_in_child() {
  slots_->after_fork_in_child();
  // The parent's connections are the parent's: to end them here would end them there.
  may_join_ = slots_->is_member() && (may_join_ || channel_ != nullptr);
  static_cast<void>(channel_.release());
  static_cast<void>(joined_.release());
  static_cast<void>(userfault_.release());
  userfault_ = ISTHMUS_TRY(open_userfault(delivery()));
  drop_ = os::PageDrop{};
  ISTHMUS_TRY_VOID(register_region());
  protect_clean_pages();
  // A signal handler must not allocate, as joining does.
  if (delivery() == FaultDelivery::kSignal) join_locked();
  lock_.unlock();
  fork_block_.reset();
  return {};
}

// Write protection did not come along. One call for as much as possible: pages between that are not
// here do not mind.
void Pager::protect_clean_pages() {
  std::uint32_t first = 0;
  std::uint32_t count = 0;  // Up to the last clean page.
  const auto protect = [&] {
    if (count > 0) userfault_->protect(pages(first, count), os::UffdProtection::kOn);
    count = 0;
  };
  for (PageIndex index = 0; index < page_count(); ++index) {
    const PageState state = table_->state(index);
    if (state == PageState::kDirty) protect();
    if (state != PageState::kClean) continue;
    if (count == 0) first = index;
    count = index + 1 - first;
  }
  protect();
}

void Pager::join_store() {
  const os::SignalBlock block;
  const Guard guard(lock_);
  join_locked();
}

void Pager::note_end() {
  bool is_last = false;
  {
    const os::SignalBlock block;
    const Guard guard(lock_);
    slots_->forget_dead_members();
    is_last = channel_ != nullptr && slots_->is_alone();
  }
  if (is_last) store_->expect_nobody();
}

// False: there is no store for this child, now or ever.
bool Pager::join_locked() {
  if (channel_ != nullptr) [[likely]] return true;
  if (!may_join_) return false;
  may_join_ = false;
  const auto done = join();
  if (!done) {
    ISTHMUS_LOG(kWarning, "a child of fork() cannot join its parent's far memory: %s",
                done.error().message.c_str());
  }
  return done.has_value();
}

Result<void> Pager::join() {
  auto store = ISTHMUS_TRY(store_->join_in_child());
  auto channel = ISTHMUS_TRY(store->open_channel(kStagingFrames));
  auto frames = ISTHMUS_TRY(Frames::create(channel->staging()));
  leave_parents_frames();
  frames_ = std::move(frames);
  channel_ = std::move(channel);
  joined_ = std::move(store);
  store_ = joined_.get();
  emptied_ = 0;
  moves_pages_ = userfault_->has(os::kUffdMove) && channel_->staging_may_be_remapped();
  return register_leaving_frames();
}

// What is in them is in its slot too: nothing was under way at the fork.
void Pager::leave_parents_frames() {
  ISTHMUS_ASSERT(under_way_ == 0);
  for (std::uint32_t index = 0; index < frames_->count(); ++index) {
    const PageIndex page = frames_->at(index).page;
    if (page == Frame::kNobody) continue;
    table_->set_state(page, PageState::kRemote);
    --stats_.pages_staged;
    ++stats_.pages_remote;
  }
  // SAFETY: an address for the kernel.
  const os::AddressRange staging{reinterpret_cast<std::uint64_t>(frames_->bytes(0)),
                                 frames_->count() * os::kPageBytes};
  drop_.drop(std::span(&staging, 1));
}

}  // namespace isthmus::farmem
