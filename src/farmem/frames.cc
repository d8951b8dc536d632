#include "farmem/frames.h"

#include <algorithm>
#include <new>

namespace isthmus::farmem {

Result<std::unique_ptr<Frames>> Frames::create(std::span<std::byte> staging) {
  const std::size_t count = staging.size() / os::kPageBytes;
  auto memory = ISTHMUS_TRY(os::AnonymousMemory::create(count * sizeof(Frame)));
  auto frames = std::unique_ptr<Frames>(new Frames(staging, std::move(memory)));
  for (std::uint32_t index = 0; index < count; ++index) new (&frames->at(index)) Frame{};
  return frames;
}

Frames::Run Frames::next(const Ring& ring, std::uint32_t count) {
  const std::uint32_t first = ring.first + ring.cursor;
  const std::uint32_t most = std::min(count, ring.count - ring.cursor);
  std::uint32_t idle = 0;
  while (idle < most) {
    const FrameState state = at(first + idle).state;
    if (state == FrameState::kArriving || state == FrameState::kLeaving) break;
    ++idle;
  }
  return {first, idle};
}

void Frames::take(Run run) {
  Ring& ring = run.first < leaving_.first ? arriving_ : leaving_;
  ring.cursor = (run.first + run.count - ring.first) % ring.count;
}

}  // namespace isthmus::farmem
