#include "rdma/raw_packet.h"

#include <algorithm>

#include "base/assert.h"
#include "rdma/engine_state.h"
#include "rdma/queue_pair.h"
#include "wire/ip.h"

namespace isthmus::rdma {
namespace {

constexpr std::size_t kFramesPerRound = 64;
constexpr int kBatchesPerRound = 4;

}  // namespace

RawPackets::RawPackets(EngineState& engine, std::unique_ptr<FramePort> port)
    : engine_(engine), port_(std::move(port)), pieces_(kFramesPerRound * kMaxSge) {
  outgoing_.reserve(kFramesPerRound);
}

bool RawPackets::transmit(QueuePair& qp) {
  SendQueue& queue = qp.send_queue;
  outgoing_.clear();
  std::uint64_t bytes = 0;
  std::span<iovec> free = pieces_;
  std::uint64_t number = queue.head();
  for (; number != queue.tail() && qp.may_start(); ++number) {
    if (outgoing_.size() == kFramesPerRound) break;
    SendEntry& entry = queue.at(number);
    entry.started = entry.done = true;
    int pieces = 1;
    if (entry.length < wire::kEthernetBytes || entry.length > port_->max_frame_bytes()) {
      entry.status = IBV_WC_LOC_LEN_ERR;
      break;
    }
    if (entry.flags & IBV_SEND_INLINE) {
      free[0] = {queue.inline_bytes(number), entry.length};
    } else {
      pieces = resolve(engine_.keys, qp.pd_number(), queue.sges(number), 0, entry.length, false,
                       engine_.null_memory(), free);
    }
    if (pieces < 0) {
      entry.status = IBV_WC_LOC_PROT_ERR;
      break;
    }
    outgoing_.emplace_back(free.first(static_cast<std::size_t>(pieces)));
    free = free.subspan(static_cast<std::size_t>(pieces));
    bytes += entry.length;
  }
  port_->send(outgoing_);
  qp.count_sent(outgoing_.size(), bytes);
  qp.retire_sends();
  return !queue.empty() && qp.may_start();
}

Result<std::uint32_t> RawPackets::attach(QueuePair& qp, const FlowRule& rule) {
  if (rules_.size() >= kMaxFlowRules) {
    return fail(ErrorCode::kNoMemory, "all %u flow rules are in use", kMaxFlowRules);
  }
  ISTHMUS_TRY_VOID(port_->listen());
  const auto place = std::ranges::find_if(
      rules_, [&](const Attached& other) { return rule.is_before(other.rule); });
  rules_.insert(place, {next_number_, &qp, rule});
  ++qp.in_use;
  return next_number_++;
}

void RawPackets::detach(std::uint32_t number) {
  const auto found = std::ranges::find(rules_, number, &Attached::number);
  ISTHMUS_ASSERT(found != rules_.end());
  --found->qp->in_use;
  rules_.erase(found);
  if (rules_.empty()) port_->ignore();
}

bool RawPackets::receive() {
  bool any = false;
  for (int i = 0; i < kBatchesPerRound && !rules_.empty(); ++i) {
    const std::span<const IncomingFrame> batch = port_->receive();
    if (batch.empty()) break;
    any = true;
    for (const IncomingFrame frame : batch) deliver(frame);
  }
  return any;
}

void RawPackets::deliver(IncomingFrame frame) {
  if (frame.size() < wire::kEthernetBytes || frame.size() > port_->max_frame_bytes()) {
    count(engine_.window->header.counters.drops);
    return;
  }
  const FlowFields fields = flow_fields_of(frame);
  const FlowRule* taken_by = nullptr;
  for (const Attached& attached : rules_) {
    const FlowRule& rule = attached.rule;
    if (taken_by && !(rule == *taken_by)) {
      if (taken_by->is_before(rule)) break;
      continue;
    }
    if (!taken_by && !rule.matches(fields)) continue;
    if (!rule.goes_on) taken_by = &rule;
    if (!rule.drops) attached.qp->on_frame(frame);
  }
}

}  // namespace isthmus::rdma
