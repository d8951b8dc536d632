// VerbsChannel: a channel of VerbsStore: a queue pair to each node, one completion queue, and
// staging memory that is registered once.
//
// A read asks the first copy that can be reached, and the next one when that fails. A write goes to
// all copies that can be reached and is done when they have it. A write over slots that a read
// under way is still reading is fenced: the read sees what was there before.
//
// Threading: one thread at a time, perhaps in a signal handler; fail_node() from any.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>

#include "base/result.h"
#include "farmem/remote/data_link.h"
#include "farmem/remote/slab_map.h"
#include "farmem/remote/verbs_objects.h"
#include "farmem/store.h"
#include "os/anonymous_memory.h"

namespace isthmus::farmem {

class VerbsChannel final : public StoreChannel {
 public:
  // The end of a channel's life, for the store.
  using Closed = std::function<void(VerbsChannel&)>;

  // The queue pairs are made, but joined with nothing yet.
  static Result<std::unique_ptr<VerbsChannel>> create(SlabMap& map, ibv_context& context,
                                                      ibv_pd& pd, std::uint32_t nodes,
                                                      std::uint32_t frames);
  ~VerbsChannel() override;

  std::span<std::byte> staging() const override {
    return {staging_->data(), staging_->size()};
  }
  bool staging_may_be_remapped() const override { return device_follows_mappings_; }
  void read(SlotRun from, std::byte* to, std::uint64_t ticket) override;
  void write(SlotRun to, const std::byte* from, std::uint64_t ticket) override;
  std::size_t poll(std::span<StoreCompletion> completions) override;
  // To one copy alone: see slab_map.h.
  void write_copy(SlotRun to, std::uint32_t copy, const std::byte* from, std::uint64_t ticket);

  // For the store.
  ibv_qp& queue_pair(std::uint32_t node) { return *queue_pairs_[node]; }
  void set_node_qpn(std::uint32_t node, std::uint32_t qpn) { node_qpns_[node] = qpn; }
  std::uint32_t node_qpn(std::uint32_t node) const { return node_qpns_[node]; }
  void fail_node(std::uint32_t node) { fail_data_qp(*queue_pairs_[node]); }
  void on_close(Closed closed) { closed_ = std::move(closed); }

 private:
  enum class Kind : std::uint8_t { kNone, kRead, kWrite, kFill };

  struct Transfer {
    std::uint64_t ticket = 0;
    SlotRun run{};
    std::uint64_t address = 0;  // Of the staging frames.
    Kind kind = Kind::kNone;
    std::uint8_t next_copy = 0;  // Of a read: to be tried when this one fails.
    std::uint8_t under_way = 0;  // Work requests.
    std::uint8_t done = 0;       // Copies read or written.
  };
  using TransferIndex = std::uint16_t;

  VerbsChannel(SlabMap& map, std::unique_ptr<os::AnonymousMemory> staging);

  TransferIndex begin(Kind kind, SlotRun run, const std::byte* frames, std::uint64_t ticket);
  bool post(TransferIndex index, std::uint32_t copy, unsigned flags);
  void read_next_copy(TransferIndex index);
  void take(const ibv_wc& wc);
  void await_word_of_loss();
  void end_if_done(TransferIndex index);
  bool is_being_read(SlotRun run) const;

  SlabMap& map_;
  std::unique_ptr<os::AnonymousMemory> staging_;
  bool device_follows_mappings_ = false;
  MrOwner region_;
  CqOwner cq_;
  std::array<QpOwner, kMostNodes> queue_pairs_;
  std::array<std::uint32_t, kMostNodes> node_qpns_{};
  Closed closed_;

  std::array<Transfer, kMostUnderWay> transfers_{};
  std::array<TransferIndex, kMostUnderWay> free_{};
  std::uint32_t free_count_ = kMostUnderWay;
  std::uint32_t reads_ = 0;       // Transfers.
  std::uint32_t work_ = 0;        // Work requests under way.
  bool has_awaited_word_ = false;
  // Ended, not yet polled.
  std::array<StoreCompletion, kMostUnderWay> ended_{};
  std::uint32_t ended_count_ = 0;
};

}  // namespace isthmus::farmem
