// `isthmus run`: finds or starts the daemon, puts our libraries before the program and becomes the
// program.
//
// A connection that the program inherits keeps a private daemon alive as long as the program, or
// anything it started, runs.
#include <algorithm>
#include <filesystem>
#include <initializer_list>
#include <iterator>

#include "apps/isthmus_options.h"
#include "apps/isthmus_run_memory.h"
#include "apps/isthmus_run_report.h"
#include "attach/attach_options.h"
#include "attach/socket_path.h"
#include "base/log.h"
#include "os/child_process.h"
#include "os/fd.h"
#include "os/lock_file.h"
#include "os/memory_calls.h"
#include "os/program_file.h"
#include "os/text_file.h"

namespace isthmus::apps {
namespace {

namespace fs = std::filesystem;

constexpr const char* kVerbsLibrary = "libibverbs.so.1";
constexpr const char* kConnectionLibrary = "librdmacm.so.1";
constexpr const char* kPreloadLibrary = "libisthmus_preload.so";
constexpr const char* kMemoryLibrary = "libisthmus_farmem.so";

bool nobody_answers(ErrorCode code) {
  return code == ErrorCode::kNotFound || code == ErrorCode::kRefused || code == ErrorCode::kClosed;
}

Result<void> check_program(const os::ProgramFile& program) {
  if (program.gains_rights) {
    return fail(ErrorCode::kUnsupported,
                "%s runs with more rights than its caller's (set-user-id or capabilities), so the "
                "system ignores libraries put before it, for RDMA as for far memory; run it as "
                "that user instead",
                program.path.c_str());
  }
  if (program.is_elf && !program.has_interpreter) {
    return fail(ErrorCode::kUnsupported,
                "%s is statically linked: it has no libibverbs to replace and no malloc whose "
                "memory could be far; link it dynamically",
                program.path.c_str());
  }
  return {};
}

// Build tree: bin/isthmus and lib/. Installed: bin/isthmus and lib/isthmus/, where our libraries do
// not get in the way of the system's.
Result<std::string> find_libraries() {
  const fs::path above = fs::path(os::own_program_path()).parent_path().parent_path();
  for (const fs::path& folder : {above / "lib" / "isthmus", above / "lib"}) {
    if (os::path_exists(folder / kVerbsLibrary)) return folder.string();
  }
  return fail(ErrorCode::kNotFound,
              "%s is neither in %s nor in the folder isthmus below it; build or install Isthmus "
              "completely",
              kVerbsLibrary, (above / "lib").c_str());
}

Result<void> start_daemon(const std::string& socket, const RunOptions& options) {
  const fs::path beside = fs::path(os::own_program_path()).parent_path() / "isthmusd";
  std::vector<std::string> command{os::path_exists(beside) ? beside.string() : "isthmusd",
                                   "--private", "--detach", "--socket", socket};
  for (const std::string& address : options.addresses) {
    command.insert(command.end(), {"--address", address});
  }
  if (!options.policy_file.empty()) {
    command.insert(command.end(), {"--policy", options.policy_file});
  }
  if (!options.cluster_key_file.empty()) {
    command.insert(command.end(), {"--cluster-key", options.cluster_key_file});
  }
  // It returns when the daemon serves, or has said why it does not.
  os::FinishedProcess finished = ISTHMUS_TRY(os::run_to_end(command));
  if (finished.status == 0) return {};
  while (finished.output.ends_with('\n')) finished.output.pop_back();
  return fail(ErrorCode::kIo, "no isthmusd answers at %s and none could be started:\n%s",
              socket.c_str(), finished.output.c_str());
}

bool asks_for_own_daemon(const RunOptions& options) {
  return !options.addresses.empty() || !options.policy_file.empty() ||
         !options.cluster_key_file.empty();
}

// A connection to the daemon at `socket`, which is started first if nobody is there.
Result<os::Fd> hold_daemon(const std::string& socket, const RunOptions& options) {
  const attach::AttachOptions attach{.socket_path = socket, .label = options.label};
  auto held = attach::open_hold_connection(attach);
  if (held && asks_for_own_daemon(options)) {
    ISTHMUS_LOG(kWarning,
                "an isthmusd answers at %s already; --address, --policy and --cluster-key are for "
                "one that has to be started, and do nothing",
                socket.c_str());
  }
  if (held || !nobody_answers(held.error().code)) return held;

  const fs::path folder = fs::path(socket).parent_path();
  if (!folder.empty() && !os::path_exists(folder)) {
    ISTHMUS_TRY_VOID(os::make_private_folder(folder));
  }
  // Several programs may be started at once: one of them starts the daemon, the others wait here.
  const os::Fd starting = ISTHMUS_TRY(os::lock_file(socket + ".start", os::LockWait::kYes));
  held = attach::open_hold_connection(attach);
  if (held || !nobody_answers(held.error().code)) return held;
  ISTHMUS_TRY_VOID(start_daemon(socket, options));
  return attach::open_hold_connection(attach);
}

Result<std::string> choose_socket(const GlobalOptions& global) {
  const bool told = !global.socket.empty() || !os::environment_variable("ISTHMUS_SOCKET").empty();
  std::string socket = global.socket.empty() ? attach::default_socket_path() : global.socket;
  if (!told && socket != attach::private_socket_path()) {
    // The system's daemon, unless it is only its socket that is left.
    const auto held = attach::open_hold_connection({.socket_path = socket});
    if (!held && nobody_answers(held.error().code)) socket = attach::private_socket_path();
  }
  return fs::absolute(socket).string();
}

std::string join_before(const std::string& separator, const std::string& first,
                        const std::string& variable) {
  const std::string present = os::environment_variable(variable);
  return present.empty() ? first : first + separator + present;
}

Result<os::EnvironmentChanges> environment_for(const std::string& libraries,
                                               const std::string& socket,
                                               const RunOptions& options,
                                               const RunMemory& memory) {
  std::string preload;
  if (memory.far_bytes > 0) {
    // First of all, since it stands in front of malloc.
    preload = fs::path(libraries) / kMemoryLibrary;
    if (!os::path_exists(preload)) {
      return fail(ErrorCode::kNotFound,
                  "%s is missing: Isthmus was built without jemalloc, which far memory needs",
                  preload.c_str());
    }
  }
  // Preloading what LD_LIBRARY_PATH would find as well serves programs with a library path of
  // their own (RPATH), which goes first.
  for (const char* name : {kPreloadLibrary, kVerbsLibrary, kConnectionLibrary}) {
    const fs::path path = fs::path(libraries) / name;
    if (os::path_exists(path)) preload += (preload.empty() ? "" : ":") + path.string();
  }
  os::EnvironmentChanges changes{
      {"LD_LIBRARY_PATH", join_before(":", libraries, "LD_LIBRARY_PATH")},
      {"LD_PRELOAD", join_before(":", preload, "LD_PRELOAD")},
      {"ISTHMUS_SOCKET", socket}};
  if (!options.label.empty()) changes.emplace_back("ISTHMUS_LABEL", options.label);
  if (!options.channel.empty() && options.channel != "auto") {
    changes.emplace_back("ISTHMUS_CHANNEL", options.channel);
  }
  if (memory.far_bytes > 0) {
    os::EnvironmentChanges more = ISTHMUS_TRY(memory_environment(memory, options));
    std::ranges::move(more, std::back_inserter(changes));
  }
  return changes;
}

// As a shell reports a program that could not be run.
CommandResult report(const Error& error) {
  ISTHMUS_LOG(kError, "%s", error.message.c_str());
  return error.code == ErrorCode::kNotFound ? kExitNotFound : kExitNotRunnable;
}

}  // namespace

CommandResult run_program(const GlobalOptions& global, const RunOptions& options) {
  const auto program = os::find_program(options.command.front());
  if (!program) return report(program.error());
  if (const auto runnable = check_program(*program); !runnable) return report(runnable.error());

  const RunMemory memory = ISTHMUS_TRY(check_run_memory(options, os::physical_memory_bytes()));
  if (memory.far_bytes > 0) {
    // Without the right to ask, the program's start says what is missing.
    const auto features = os::Userfault::supported();
    const std::string caution = features ? caution_for(*features) : "";
    if (!caution.empty()) ISTHMUS_LOG(kWarning, "%s", caution.c_str());
  }
  const std::string libraries = ISTHMUS_TRY(find_libraries());
  const std::string socket = ISTHMUS_TRY(choose_socket(global));
  const os::EnvironmentChanges environment =
      ISTHMUS_TRY(environment_for(libraries, socket, options, memory));
  const os::Fd held = ISTHMUS_TRY(hold_daemon(socket, options));
  const os::Fd inherited = ISTHMUS_TRY(held.duplicate_for_children());
  if (!options.report_file.empty()) {
    return run_with_report(options.command, environment, options.report_file);
  }
  return report(os::replace_process(options.command, environment));
}

}  // namespace isthmus::apps
