// isthmus lab: carries out the plan. State is a folder for each lab, so that `down` can undo
// whatever `up` got done, and finds namespaces by their names even when the folder is lost.
#include <fmt/format.h>

#include <sstream>

#include "apps/isthmus_json.h"
#include "apps/isthmus_lab_plan.h"
#include "apps/isthmus_session.h"
#include "apps/isthmus_table.h"
#include "os/child_process.h"
#include "os/host_probe.h"
#include "os/random.h"
#include "os/text_file.h"
#include "os/unix_peer.h"

namespace isthmus::apps {
namespace {

constexpr int kStopPatienceMs = 3000;
constexpr std::size_t kClusterKeyBytes = 32;

// Beside the sockets of this user's own daemon.
std::string lab_folder(const std::string& name) {
  const std::string runtime = os::environment_variable("XDG_RUNTIME_DIR");
  const std::string base =
      runtime.empty() ? fmt::format("/tmp/isthmus-{}", os::user_id()) : runtime + "/isthmus";
  return base + "/lab/" + name;
}

std::string state_file(const std::string& folder) { return folder + "/hosts"; }

Result<std::vector<LabHost>> read_hosts(const LabOptions& options) {
  const auto text = os::read_text_file(state_file(lab_folder(options.name)));
  if (!text) {
    return fail(ErrorCode::kNotFound, "no lab%s is up; isthmus lab up makes one",
                options.name == "lab" ? "" : (" named " + options.name).c_str());
  }
  return parse_state(*text);
}

std::string without_last_newline(const std::string& text) {
  return text.substr(0, text.find_last_not_of('\n') + 1);
}

// A command of the set-up, which has to succeed.
Result<void> carry_out(const Command& command) {
  const os::FinishedProcess finished = ISTHMUS_TRY(os::run_to_end(command));
  if (finished.status == 0) return {};
  return fail(ErrorCode::kIo, "`%s` failed: %s", command_text(command).c_str(),
              without_last_newline(finished.output).c_str());
}

Result<void> start_daemon(const LabPlan& plan, const LabHost& host) {
  const std::string program = os::own_program_path() + "d";  // isthmusd lies beside isthmus.
  const std::string log = plan.folder + "/" + host.name + ".start";
  const int status = ISTHMUS_TRY(os::run_with_log(daemon_command(plan, host, program), log));
  if (status == 0) return {};
  const auto text = os::read_text_file(log);
  return fail(ErrorCode::kIo, "the daemon of %s did not start: %s", host.name.c_str(),
              text && !text->empty() ? without_last_newline(*text).c_str() : "it said nothing");
}

std::string random_key() {
  std::array<std::byte, kClusterKeyBytes> key{};
  os::fill_random(key);
  std::string text;
  for (const auto byte : key) text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
  return text + "\n";
}

Result<void> build(const LabPlan& plan) {
  ISTHMUS_TRY_VOID(os::make_private_folder(plan.folder));
  ISTHMUS_TRY_VOID(os::write_text_file(plan.cluster_key, random_key(), os::TextFileAccess::kOwner));
  // First, so that `down` knows what to end even if we are killed from here on.
  ISTHMUS_TRY_VOID(
      os::write_text_file(state_file(plan.folder), state_text(plan), os::TextFileAccess::kOwner));
  for (const auto& command : plan.network) ISTHMUS_TRY_VOID(carry_out(command));
  for (const auto& host : plan.hosts) ISTHMUS_TRY_VOID(start_daemon(plan, host));
  return {};
}

Result<void> stop(std::int32_t process, os::Stop how = os::Stop::kAsk) {
  const auto asked = os::stop_process(process, how, kStopPatienceMs);
  if (asked || asked.error().code != ErrorCode::kTimedOut) return asked;
  return os::stop_process(process, os::Stop::kForce, kStopPatienceMs);
}

// The lab's namespaces that exist, as the kernel knows them.
std::vector<std::string> existing_namespaces(const std::string& lab_name) {
  std::vector<std::string> found;
  for (const auto& name : os::list_folder("/run/netns")) {
    if (belongs_to_lab(name, lab_name)) found.push_back(name);
  }
  return found;
}

Result<void> remove_namespace(const std::string& name) {
  const auto inside = os::run_to_end({"ip", "netns", "pids", name});
  if (inside) {
    std::istringstream numbers{inside->output};
    for (std::int32_t process = 0; numbers >> process;) ISTHMUS_TRY_VOID(stop(process));
  }
  return carry_out({"ip", "netns", "delete", name});
}

Result<void> take_down(const std::string& lab_name) {
  const std::string folder = lab_folder(lab_name);
  if (const auto text = os::read_text_file(state_file(folder))) {
    const auto hosts = parse_state(*text);
    for (const auto& host : hosts.value_or(std::vector<LabHost>{})) {
      const auto daemon = os::unix_peer_process(host.socket, os::UnixSocketType::kSeqPacket);
      // For good: its programs are not to go on without it.
      if (daemon) ISTHMUS_TRY_VOID(stop(*daemon, os::Stop::kInterrupt));
    }
  }
  for (const auto& name : existing_namespaces(lab_name)) ISTHMUS_TRY_VOID(remove_namespace(name));
  return os::remove_tree(folder);
}

LabHostStatus status_of(const LabHost& host) {
  LabHostStatus status{.host = host};
  const auto client = connect_to_daemon({.socket = host.socket});
  if (!client) return status;
  const auto report = (*client)->status({});
  if (!report) return status;
  status.daemon_process = report->process_id;
  status.programs = static_cast<std::uint32_t>(report->functions.size());
  for (const auto& function : report->functions) status.queue_pairs += function.queue_pair_count;
  return status;
}

void print_hosts(const std::vector<LabHostStatus>& hosts) {
  using Align = Table::Align;
  Table table{{{"HOST"},
               {"ADDRESS"},
               {"IPV6"},
               {"NAMESPACE"},
               {"DAEMON", Align::kRight},
               {"PROGRAMS", Align::kRight},
               {"QPS", Align::kRight},
               {"SOCKET"}}};
  const auto or_dash = [](const std::string& text) { return text.empty() ? "-" : text; };
  for (const auto& status : hosts) {
    const bool answers = status.daemon_process != 0;
    table.add({status.host.name, status.host.address, or_dash(status.host.address6),
               or_dash(status.host.network_namespace),
               answers ? std::to_string(status.daemon_process) : "gone",
               answers ? std::to_string(status.programs) : "-",
               answers ? std::to_string(status.queue_pairs) : "-", status.host.socket});
  }
  fmt::print("{}", table.text());
}

LabKind kind_for(const LabOptions& options) {
  if (options.loopback) return LabKind::kLoopback;
  if (os::can_make_network_namespaces()) return LabKind::kNamespaces;
  fmt::print(stderr,
             "isthmus: network namespaces need root and the program `ip`; "
             "the hosts are loopback addresses\n");
  return LabKind::kLoopback;
}

}  // namespace

CommandResult lab_up(const GlobalOptions&, const LabOptions& asked) {
  LabOptions options = asked;
  if (!options.policy_file.empty()) {
    options.policy_file = ISTHMUS_TRY(os::absolute_path(options.policy_file));
  }
  const LabPlan plan = ISTHMUS_TRY(plan_lab(options, kind_for(options), lab_folder(options.name)));
  if (options.dry_run) {
    fmt::print("mkdir -p -m 700 {}\n# {}: 32 random bytes; {}: this lab's hosts\n", plan.folder,
               plan.cluster_key, state_file(plan.folder));
    for (const auto& command : plan.network) fmt::print("{}\n", command_text(command));
    for (const auto& host : plan.hosts) {
      fmt::print("{}\n", command_text(daemon_command(plan, host, os::own_program_path() + "d")));
    }
    return kExitDone;
  }
  if (os::path_exists(state_file(plan.folder)) || !existing_namespaces(options.name).empty()) {
    return fail(ErrorCode::kExists, "this lab is up already; isthmus lab down ends it");
  }
  if (auto built = build(plan); !built) {
    const auto undone = take_down(options.name);
    return fail(built.error().code, "%s%s", built.error().message.c_str(),
                undone ? "" : ("; undoing it failed too: " + undone.error().message).c_str());
  }
  std::vector<LabHostStatus> hosts;
  for (const auto& host : plan.hosts) hosts.push_back(status_of(host));
  print_hosts(hosts);
  return kExitDone;
}

CommandResult lab_down(const GlobalOptions&, const LabOptions& options) {
  if (options.dry_run) {
    for (const auto& name : existing_namespaces(options.name)) {
      fmt::print("end the processes in {}\nip netns delete {}\n", name, name);
    }
    if (const auto hosts = read_hosts(options)) {
      for (const auto& host : *hosts) fmt::print("end the daemon at {}\n", host.socket);
    }
    fmt::print("rm -rf {}\n", lab_folder(options.name));
    return kExitDone;
  }
  ISTHMUS_TRY_VOID(take_down(options.name));
  return kExitDone;
}

CommandResult lab_exec(const GlobalOptions&, const LabOptions& options) {
  const auto hosts = ISTHMUS_TRY(read_hosts(options));
  const LabHost host = ISTHMUS_TRY(find_host(hosts, options.host));
  const Error error =
      os::replace_process(exec_command(host, os::own_program_path(), options, hosts),
                          {{"ISTHMUS_SOCKET", host.socket}});
  fmt::print(stderr, "isthmus: {}\n", error.message);
  return error.code == ErrorCode::kNotFound ? kExitNotFound : kExitNotRunnable;
}

CommandResult lab_status(const GlobalOptions&, const LabOptions& options) {
  const auto hosts = ISTHMUS_TRY(read_hosts(options));
  std::vector<LabHostStatus> statuses;
  for (const auto& host : hosts) statuses.push_back(status_of(host));
  if (options.json) {
    fmt::print("{}\n", lab_json(statuses));
  } else {
    print_hosts(statuses);
  }
  return kExitDone;
}

}  // namespace isthmus::apps
