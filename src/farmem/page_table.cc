#include "farmem/page_table.h"

namespace isthmus::farmem {

static_assert(sizeof(std::atomic<std::uint8_t>) == 1);

const char* to_string(PageState state) {
  switch (state) {
    case PageState::kEmpty: return "empty";
    case PageState::kClean: return "clean";
    case PageState::kDirty: return "dirty";
    case PageState::kRemote: return "remote";
    case PageState::kStaged: return "staged";
    case PageState::kLost: return "lost";
  }
  return "unknown";
}

Result<std::unique_ptr<PageTable>> PageTable::create(std::uint32_t page_count) {
  constexpr std::size_t kBytesOfPage = sizeof(std::uint32_t) + 3;
  auto memory = ISTHMUS_TRY(os::AnonymousMemory::create(page_count * kBytesOfPage));
  return std::unique_ptr<PageTable>(new PageTable(page_count, std::move(memory)));
}

}  // namespace isthmus::farmem
