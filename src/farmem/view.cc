#include "farmem/view.h"

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>

#include "os/file_part.h"
#include "os/process.h"
#include "os/process_memory.h"
#include "os/text_file.h"

namespace isthmus::farmem {
namespace {

constexpr const char* kName = "isthmus-far-memory";
// As the kernel names it in /proc/PID/fd.
constexpr const char* kLinkPrefix = "/memfd:isthmus-far-memory";

// A terabyte: what is read from a file of others must have a bound.
constexpr std::uint32_t kMostPages = 1u << 28;

std::string folder_of(std::int32_t process_id) {
  return "/proc/" + std::to_string(process_id) + "/fd";
}

}  // namespace

Result<std::unique_ptr<ViewPublisher>> ViewPublisher::create(const Pager& pager) {
  os::Fd file = ISTHMUS_TRY(os::create_shared_memory(kName, sizeof(ViewHeader)));
  auto mapping = ISTHMUS_TRY(os::Mapping::create(file, sizeof(ViewHeader)));
  ViewHeader header;
  header.process_id = static_cast<std::uint32_t>(os::process_id());
  header.page_count = static_cast<std::uint32_t>(pager.region().bytes / os::kPageBytes);
  header.region_start = pager.region().start;
  header.stats_address = pager.stats_address();
  header.states_address = pager.states_address();
  header.delivery = static_cast<std::uint64_t>(pager.delivery());
  std::memcpy(mapping->data(), &header, sizeof header);
  return std::unique_ptr<ViewPublisher>(
      new ViewPublisher(pager, std::move(file), std::move(mapping)));
}

void ViewPublisher::write_last() {
  // SAFETY: written by create().
  auto* header = reinterpret_cast<ViewHeader*>(mapping_->data());
  if (header->process_id != static_cast<std::uint32_t>(os::process_id())) return;
  header->last = pager_.stats();
  __atomic_store_n(&header->ended, 1, __ATOMIC_RELEASE);
}

Result<std::unique_ptr<View>> View::open(std::int32_t process_id) {
  const std::string folder = folder_of(process_id);
  for (const std::string& entry : os::list_folder(folder)) {
    const std::string path = folder + "/" + entry;
    if (!os::link_target(path).starts_with(kLinkPrefix)) continue;
    auto file = os::open_to_read(path);
    if (!file) continue;
    auto view = std::unique_ptr<View>(new View(process_id, std::move(*file)));
    if (view->read_header() && view->header_.process_id == static_cast<std::uint32_t>(process_id)) {
      return view;
    }
  }
  if (!os::path_exists("/proc/" + std::to_string(process_id))) {
    return fail(ErrorCode::kNotFound, "there is no process %d", process_id);
  }
  if (os::list_folder(folder).empty()) {
    return fail(ErrorCode::kDenied, "process %d belongs to another user", process_id);
  }
  return fail(ErrorCode::kNotFound,
              "the memory of process %d is not far; it was not started by isthmus run "
              "--far-memory, nor asked for any itself",
              process_id);
}

std::vector<std::int32_t> View::list() {
  std::vector<std::int32_t> found;
  for (const std::string& entry : os::list_folder("/proc")) {
    std::int32_t process_id = 0;
    const auto parsed = std::from_chars(entry.data(), entry.data() + entry.size(), process_id);
    if (parsed.ec != std::errc{} || parsed.ptr != entry.data() + entry.size()) continue;
    if (View::open(process_id)) found.push_back(process_id);
  }
  std::ranges::sort(found);
  return found;
}

Result<void> View::read_header() {
  ISTHMUS_TRY_VOID(os::read_exactly(file_, 0, &header_, sizeof header_));
  if (header_.magic != ViewHeader::kMagic || header_.page_count > kMostPages) {
    return fail(ErrorCode::kInvalid, "process %d shows far memory of another version", process_id_);
  }
  return {};
}

Result<void> View::read_memory(std::uint64_t address, void* to, std::size_t bytes) const {
  const os::ProcessMemory memory(process_id_);
  const iovec local{to, bytes};
  // SAFETY: an address of the other process, followed by the kernel.
  const iovec remote{reinterpret_cast<void*>(address), bytes};
  const std::ptrdiff_t done = memory.read({&local, 1}, {&remote, 1});
  if (done == static_cast<std::ptrdiff_t>(bytes)) return {};
  return fail_errno(done < 0 ? errno : EFAULT,
                    "read the far-memory tables of process " + std::to_string(process_id_));
}

Result<PagerStats> View::stats() {
  ISTHMUS_TRY_VOID(read_header());
  if (header_.ended == 1) return header_.last;
  PagerStats stats;
  const auto read = read_memory(header_.stats_address, &stats, sizeof stats);
  if (read) return stats;
  // It may have ended just now.
  ISTHMUS_TRY_VOID(read_header());
  if (header_.ended == 1) return header_.last;
  return std::unexpected(read.error());
}

Result<std::vector<PageState>> View::states() {
  std::vector<PageState> states(header_.page_count);
  if (states.empty()) return states;
  ISTHMUS_TRY_VOID(read_memory(header_.states_address, states.data(), states.size()));
  for (PageState& state : states) {
    if (state > PageState::kLost) state = PageState::kEmpty;
  }
  return states;
}

}  // namespace isthmus::farmem
