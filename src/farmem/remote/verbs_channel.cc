#include "farmem/remote/verbs_channel.h"

#include <algorithm>
#include <cerrno>
#include <string_view>
#include <utility>

#include "base/assert.h"
#include "os/address_range.h"
#include "os/clock.h"
#include "os/process.h"

namespace isthmus::farmem {
namespace {

constexpr int kCompletionsOfPoll = 16;
// In a wr_id, above the index of the transfer.
constexpr unsigned kNodeShift = 16;
static_assert(StoreChannel::kMostUnderWay <= 1u << kNodeShift);
static_assert(kSlotBytes == os::kPageBytes);
// The keeper of the store needs microseconds to tell of a node; on a busy machine, more.
constexpr std::uint64_t kWordNs = 200 * os::kNsPerMs;

// The caller is perhaps a signal handler.
class KeepErrno {
 public:
  KeepErrno() : kept_(errno) {}
  ~KeepErrno() { errno = kept_; }
  KeepErrno(const KeepErrno&) = delete;
  KeepErrno& operator=(const KeepErrno&) = delete;

 private:
  int kept_;
};

}  // namespace

VerbsChannel::VerbsChannel(SlabMap& map, std::unique_ptr<os::AnonymousMemory> staging)
    : map_(map), staging_(std::move(staging)) {
  for (std::uint32_t i = 0; i < kMostUnderWay; ++i) free_[i] = static_cast<TransferIndex>(i);
}

Result<std::unique_ptr<VerbsChannel>> VerbsChannel::create(SlabMap& map, ibv_context& context,
                                                           ibv_pd& pd, std::uint32_t nodes,
                                                           std::uint32_t frames) {
  auto staging = ISTHMUS_TRY(os::AnonymousMemory::create(frames * kSlotBytes));
  std::unique_ptr<VerbsChannel> channel{new VerbsChannel(map, std::move(staging))};
  channel->region_.reset(ibv_reg_mr(&pd, channel->staging_->data(), channel->staging_->size(),
                                    IBV_ACCESS_LOCAL_WRITE));
  if (!channel->region_) return fail_errno(errno, "register staging memory");
  // Ours takes bytes from where an address leads; any other has been told which pages lie there.
  channel->device_follows_mappings_ =
      std::string_view(ibv_get_device_name(context.device)).starts_with("isthmus");
  // A transfer has at most one work request on each queue pair.
  const int depth = static_cast<int>(nodes * kMostUnderWay);
  channel->cq_.reset(ibv_create_cq(&context, depth, nullptr, nullptr, 0));
  if (!channel->cq_) return fail_errno(errno, "create a completion queue");
  for (std::uint32_t node = 0; node < nodes; ++node) {
    channel->queue_pairs_[node] =
        ISTHMUS_TRY(create_data_qp(pd, *channel->cq_, kMostUnderWay));
  }
  return channel;
}

VerbsChannel::~VerbsChannel() {
  if (closed_) closed_(*this);
}

VerbsChannel::TransferIndex VerbsChannel::begin(Kind kind, SlotRun run, const std::byte* frames,
                                                std::uint64_t ticket) {
  ISTHMUS_ASSERT(free_count_ > 0 && run.count > 0 && run.count <= kMostPagesOfTransfer);
  ISTHMUS_ASSERT(run.first < map_.slot_count() &&
                 run.first % map_.slots_of_slab() + run.count <= map_.slots_of_slab());
  ISTHMUS_ASSERT(frames >= staging_->data() && frames + run.count * kSlotBytes <=
                                                   staging_->data() + staging_->size());
  const TransferIndex index = free_[--free_count_];
  transfers_[index] = {.ticket = ticket,
                       .run = run,
                       .address = reinterpret_cast<std::uintptr_t>(frames),
                       .kind = kind};
  return index;
}

void VerbsChannel::read(SlotRun from, std::byte* to, std::uint64_t ticket) {
  const KeepErrno keep;
  const TransferIndex index = begin(Kind::kRead, from, to, ticket);
  ++reads_;
  read_next_copy(index);
}

void VerbsChannel::write(SlotRun to, const std::byte* from, std::uint64_t ticket) {
  const KeepErrno keep;
  const unsigned flags = reads_ > 0 && is_being_read(to) ? IBV_SEND_FENCE : 0;
  const TransferIndex index = begin(Kind::kWrite, to, from, ticket);
  map_.begin_write(to);
  for (std::uint32_t copy = 0; copy < map_.replicas(); ++copy) {
    if (post(index, copy, flags)) ++transfers_[index].under_way;
  }
  end_if_done(index);
}

void VerbsChannel::write_copy(SlotRun to, std::uint32_t copy, const std::byte* from,
                              std::uint64_t ticket) {
  const TransferIndex index = begin(Kind::kFill, to, from, ticket);
  if (post(index, copy, 0)) ++transfers_[index].under_way;
  end_if_done(index);
}

bool VerbsChannel::is_being_read(SlotRun run) const {
  return std::ranges::any_of(transfers_, [&](const Transfer& other) {
    return other.kind == Kind::kRead && other.run.first < run.first + run.count &&
           run.first < other.run.first + other.run.count;
  });
}

bool VerbsChannel::post(TransferIndex index, std::uint32_t copy, unsigned flags) {
  const Transfer& transfer = transfers_[index];
  const SlabMap::Place& found = map_.place_of(transfer.run.first, copy);
  const SlabCopy& place = found.copy;
  if (map_.is_gone(place.node) || (transfer.kind == Kind::kRead && found.filling)) return false;
  ibv_sge sge{.addr = transfer.address,
              .length = static_cast<std::uint32_t>(transfer.run.count * kSlotBytes),
              .lkey = region_->lkey};
  ibv_send_wr wr{};
  wr.wr_id = std::uint64_t{place.node} << kNodeShift | index;
  wr.sg_list = &sge;
  wr.num_sge = 1;
  wr.opcode = transfer.kind == Kind::kRead ? IBV_WR_RDMA_READ : IBV_WR_RDMA_WRITE;
  wr.send_flags = IBV_SEND_SIGNALED | flags;
  wr.wr.rdma.remote_addr = place.address + map_.offset_of(transfer.run.first);
  wr.wr.rdma.rkey = place.rkey;
  ibv_send_wr* bad = nullptr;
  if (ibv_post_send(queue_pairs_[place.node].get(), &wr, &bad) != 0) {
    map_.mark_gone(place.node);
    return false;
  }
  ++work_;
  return true;
}

void VerbsChannel::read_next_copy(TransferIndex index) {
  Transfer& transfer = transfers_[index];
  while (transfer.next_copy < map_.replicas()) {
    if (post(index, transfer.next_copy++, 0)) {
      ++transfer.under_way;
      return;
    }
  }
  end_if_done(index);
}

void VerbsChannel::take(const ibv_wc& wc) {
  const auto index = static_cast<TransferIndex>(wc.wr_id & ((1u << kNodeShift) - 1));
  const auto node = static_cast<std::uint32_t>(wc.wr_id >> kNodeShift);
  ISTHMUS_ASSERT(index < kMostUnderWay && node < kMostNodes && work_ > 0);
  Transfer& transfer = transfers_[index];
  ISTHMUS_ASSERT(transfer.under_way > 0);
  --work_;
  --transfer.under_way;
  if (wc.status == IBV_WC_SUCCESS) {
    ++transfer.done;
  } else {
    map_.mark_gone(node, wc.status);
    if (transfer.kind == Kind::kRead) {
      read_next_copy(index);
      return;
    }
  }
  end_if_done(index);
}

// Who hears of a loss ends the program. A person should know by then which node it was, and why.
void VerbsChannel::await_word_of_loss() {
  if (std::exchange(has_awaited_word_, true)) return;
  const std::uint64_t give_up_ns = os::now_ns() + kWordNs;
  while (!map_.all_told() && os::now_ns() < give_up_ns) os::yield_processor();
}

void VerbsChannel::end_if_done(TransferIndex index) {
  Transfer& transfer = transfers_[index];
  if (transfer.under_way > 0) return;
  if (transfer.done == 0) await_word_of_loss();
  ISTHMUS_ASSERT(ended_count_ < ended_.size());
  ended_[ended_count_++] = {
      .ticket = transfer.ticket,
      .verdict = transfer.done > 0 ? StoreVerdict::kDone : StoreVerdict::kLost};
  if (transfer.kind == Kind::kRead) --reads_;
  if (transfer.kind == Kind::kWrite) map_.end_write(transfer.run);
  transfer.kind = Kind::kNone;
  free_[free_count_++] = index;
}

std::size_t VerbsChannel::poll(std::span<StoreCompletion> completions) {
  const KeepErrno keep;
  std::array<ibv_wc, kCompletionsOfPoll> list;
  while (work_ > 0 && ended_count_ < completions.size()) {
    // Each of them ends one transfer at most, and ended_ has room for all there are.
    const int count = ibv_poll_cq(cq_.get(), list.size(), list.data());
    for (int i = 0; i < count; ++i) take(list[i]);
    if (count < kCompletionsOfPoll) break;
  }
  const std::size_t count = std::min<std::size_t>(completions.size(), ended_count_);
  std::copy_n(ended_.begin(), count, completions.begin());
  std::copy(ended_.begin() + count, ended_.begin() + ended_count_, ended_.begin());
  ended_count_ -= static_cast<std::uint32_t>(count);
  return count;
}

}  // namespace isthmus::farmem
