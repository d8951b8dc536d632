#include "apps/isthmus_lab_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <sstream>

namespace isthmus::apps {
namespace {

constexpr const char* kMtu = "9000";  // Room for the largest path MTU, 4096, and its headers.
// A namespace's name is a file name; veth names have 15 bytes, but those are the same in each.
constexpr std::size_t kMaxNameBytes = 32;

std::string prefix_of(const std::string& lab_name) {
  return lab_name == "lab" ? "isthmus-lab-" : "isthmus-lab-" + lab_name + "-";
}

void add_switch(std::vector<Command>& commands, const std::string& space) {
  commands.push_back({"ip", "netns", "add", space});
  commands.push_back({"ip", "-n", space, "link", "add", "switch", "mtu", kMtu, "type", "bridge"});
  commands.push_back({"ip", "-n", space, "link", "set", "switch", "up"});
}

void add_host(std::vector<Command>& commands, const LabHost& host,
              const std::string& switch_space) {
  const std::string& space = host.network_namespace;
  commands.push_back({"ip", "netns", "add", space});
  commands.push_back({"ip", "-n", space, "link", "set", "lo", "up"});
  commands.push_back({"ip", "-n", space, "link", "add", "eth0", "mtu", kMtu, "type", "veth", "peer",
                      "name", host.name, "mtu", kMtu, "netns", switch_space});
  // Without the second that the kernel takes to look for another owner of the address.
  commands.push_back({"ip", "netns", "exec", space, "sh", "-c",
                      "echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad 2>/dev/null || true"});
  commands.push_back({"ip", "-n", space, "address", "add", host.address + "/24", "dev", "eth0"});
  commands.push_back(
      {"ip", "-n", space, "address", "add", host.address6 + "/64", "dev", "eth0", "nodad"});
  commands.push_back(
      {"ip", "-n", switch_space, "link", "set", host.name, "master", "switch", "up"});
  commands.push_back({"ip", "-n", space, "link", "set", "eth0", "up"});
}

}  // namespace

Result<LabPlan> plan_lab(const LabOptions& options, LabKind kind, const std::string& folder) {
  const bool fits = std::ranges::all_of(options.name, [](unsigned char c) {
    return std::isdigit(c) != 0 || (std::isalpha(c) != 0 && std::islower(c) != 0);
  });
  if (options.name.empty() || options.name.size() > kMaxNameBytes || !fits) {
    return fail(ErrorCode::kInvalid,
                "'%s' cannot name a lab: use up to %zu lower-case letters and digits",
                options.name.c_str(), kMaxNameBytes);
  }
  LabPlan plan{.kind = kind,
               .folder = folder,
               .cluster_key = folder + "/cluster.key",
               .policy_file = options.policy_file};
  const bool spaces = kind == LabKind::kNamespaces;
  const std::string switch_space = prefix_of(options.name) + "switch";
  if (spaces) add_switch(plan.network, switch_space);
  for (std::uint32_t i = 1; i <= options.hosts; ++i) {
    LabHost host{.name = fmt::format("h{}", i),
                 .address = fmt::format("{}.{}.0.{}", spaces ? 10 : 127, options.network, i)};
    host.socket = folder + "/" + host.name + ".sock";
    if (spaces) {
      // "fd77::10" is host 10: the numbers look alike in both families.
      host.address6 = fmt::format("fd{:02}::{}", options.network, i);
      host.network_namespace = prefix_of(options.name) + host.name;
      add_host(plan.network, host, switch_space);
    }
    plan.hosts.push_back(std::move(host));
  }
  return plan;
}

Command daemon_command(const LabPlan& plan, const LabHost& host, const std::string& program) {
  Command command;
  if (!host.network_namespace.empty()) command = {"ip", "netns", "exec", host.network_namespace};
  const Command rest{program,   "--socket",      host.socket,      "--label",
                     host.name, "--cluster-key", plan.cluster_key, "--detach"};
  command.insert(command.end(), rest.begin(), rest.end());
  if (host.network_namespace.empty()) {
    command.insert(command.end(), {"--address", host.address});
  }
  if (!plan.policy_file.empty()) command.insert(command.end(), {"--policy", plan.policy_file});
  return command;
}

Command with_addresses(const Command& command, const std::vector<LabHost>& hosts) {
  Command replaced = command;
  for (auto& word : replaced) {
    for (const auto& host : hosts) {
      if (word == "@" + host.name) {
        word = host.address;
        break;
      }
    }
  }
  return replaced;
}

Command exec_command(const LabHost& host, const std::string& isthmus, const LabOptions& options,
                     const std::vector<LabHost>& hosts) {
  Command command;
  if (!host.network_namespace.empty()) command = {"ip", "netns", "exec", host.network_namespace};
  if (!options.plain) {
    command.insert(command.end(), {isthmus, "--socket", host.socket, "run", "--"});
  }
  const Command program = with_addresses(options.command, hosts);
  command.insert(command.end(), program.begin(), program.end());
  return command;
}

bool belongs_to_lab(const std::string& network_namespace, const std::string& lab_name) {
  const std::string prefix = prefix_of(lab_name);
  if (!network_namespace.starts_with(prefix)) return false;
  const std::string rest = network_namespace.substr(prefix.size());
  if (rest == "switch") return true;
  return rest.size() > 1 && rest[0] == 'h' &&
         std::all_of(rest.begin() + 1, rest.end(),
                     [](unsigned char c) { return std::isdigit(c) != 0; });
}

std::string state_text(const LabPlan& plan) {
  const auto or_dash = [](const std::string& text) { return text.empty() ? "-" : text; };
  std::string text;
  for (const auto& host : plan.hosts) {
    text += fmt::format("{} {} {} {} {}\n", host.name, host.address, or_dash(host.address6),
                        or_dash(host.network_namespace), host.socket);
  }
  return text;
}

Result<std::vector<LabHost>> parse_state(const std::string& text) {
  const auto without_dash = [](const std::string& word) { return word == "-" ? "" : word; };
  std::vector<LabHost> hosts;
  std::istringstream lines{text};
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words{line};
    LabHost host;
    std::string address6;
    std::string space;
    words >> host.name >> host.address >> address6 >> space;
    words.ignore(1);
    std::getline(words, host.socket);  // The rest: a folder may have spaces in its name.
    if (host.socket.empty()) {
      return fail(ErrorCode::kInvalid, "the state of the lab is damaged; isthmus lab down ends it");
    }
    host.address6 = without_dash(address6);
    host.network_namespace = without_dash(space);
    hosts.push_back(std::move(host));
  }
  return hosts;
}

Result<LabHost> find_host(const std::vector<LabHost>& hosts, const std::string& name) {
  const auto found = std::ranges::find(hosts, name, &LabHost::name);
  if (found != hosts.end()) return *found;
  std::string names;
  for (const auto& host : hosts) names += (names.empty() ? "" : ", ") + host.name;
  return fail(ErrorCode::kNotFound, "the lab has no host '%s'; it has %s", name.c_str(),
              names.c_str());
}

std::string command_text(const Command& command) {
  std::string text;
  for (const auto& word : command) {
    const bool plain = !word.empty() && word.find_first_of(" \t\"'$&|;<>()*?") == std::string::npos;
    text += (text.empty() ? "" : " ") + (plain ? word : "'" + word + "'");
  }
  return text;
}

}  // namespace isthmus::apps
