// Healer: replaces the copies that were on nodes which are gone, while the store is in use.
//
// Threading: the store's keeper.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "base/result.h"
#include "farmem/remote/slab_map.h"
#include "farmem/remote/verbs_channel.h"

namespace isthmus::farmem {

class Healer {
 public:
  struct Needs {
    // A channel of kSlotsOfChunk frames.
    std::function<Result<std::unique_ptr<VerbsChannel>>()> open_channel;
    // A slab on a node that is not `other` and not gone; nothing: no such node has room.
    std::function<std::optional<SlabCopy>(std::uint32_t other)> reserve;
  };

  Healer(SlabMap& map, Needs needs) : map_(map), needs_(std::move(needs)) {}

  // Some of what there is to do. kNothing: ask again when another node is gone.
  enum class Verdict : std::uint8_t { kNothing, kMore, kNoRoom };
  Verdict step();

 private:
  struct Job {
    std::uint32_t slab = 0;
    std::uint32_t copy = 0;  // The fresh one.
    std::uint32_t next_slot = 0;
  };

  bool begin_job(bool& no_room);
  bool fill_chunk();
  bool transfer(const std::function<void()>& start);

  SlabMap& map_;
  const Needs needs_;
  std::unique_ptr<VerbsChannel> channel_;
  std::optional<Job> job_;
  std::uint32_t healed_ = 0;
};

}  // namespace isthmus::farmem
