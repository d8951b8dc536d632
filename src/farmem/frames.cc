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

Frames::Run Frames::next(std::uint32_t count) {
  const std::uint32_t most = std::min(count, count_ - cursor_);
  std::uint32_t free = 0;
  while (free < most) {
    const FrameState state = at(cursor_ + free).state;
    if (state == FrameState::kArriving || state == FrameState::kLeaving) break;
    ++free;
  }
  return {cursor_, free};
}

}  // namespace isthmus::farmem
