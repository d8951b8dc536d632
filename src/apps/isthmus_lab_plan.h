// What a lab consists of and the commands that make it: pure, so that it can be shown by a dry run
// and tested without root.
//
//     kNamespaces   each host is a network namespace isthmus-lab-hN with an eth0 (MTU 9000,
//                   10.77.0.N and fd77::N), joined by a bridge in isthmus-lab-switch
//     kLoopback     each host is an address 127.77.0.N of the loopback
//
// A lab named otherwise than "lab" has isthmus-lab-NAME- for prefix. Nothing outside the lab's own
// namespaces changes, so that taking it down is deleting them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apps/isthmus_options.h"
#include "base/result.h"

namespace isthmus::apps {

enum class LabKind { kNamespaces, kLoopback };

using Command = std::vector<std::string>;

struct LabHost {
  std::string name;  // h1, h2, ...
  std::string address;
  std::string address6;           // Empty on the loopback.
  std::string network_namespace;  // Empty on the loopback.
  std::string socket;             // Attach socket of its daemon.
  friend bool operator==(const LabHost&, const LabHost&) = default;
};

struct LabPlan {
  LabKind kind = LabKind::kLoopback;
  std::string folder;       // Holds sockets, key, logs and state_text().
  std::string cluster_key;  // A file in it.
  std::string policy_file;  // Absolute, or empty.
  std::vector<LabHost> hosts;
  std::vector<Command> network;  // To run in this order.
};

struct LabHostStatus {
  LabHost host;
  std::int32_t daemon_process = 0;  // 0: none answers.
  std::uint32_t programs = 0;
  std::uint32_t queue_pairs = 0;
};

// kInvalid: a name that cannot be part of a namespace's.
Result<LabPlan> plan_lab(const LabOptions& options, LabKind kind, const std::string& folder);

Command daemon_command(const LabPlan& plan, const LabHost& host, const std::string& program);

// "@h2" becomes the address of h2; other words stay as they are.
Command with_addresses(const Command& command, const std::vector<LabHost>& hosts);

// The command line that runs `command` on a host: `isthmus` is this program.
Command exec_command(const LabHost& host, const std::string& isthmus, const LabOptions& options,
                     const std::vector<LabHost>& hosts);

// Whether a namespace of this name is one of the lab's, whoever made it.
bool belongs_to_lab(const std::string& network_namespace, const std::string& lab_name);

// What `up` leaves for the other commands.
std::string state_text(const LabPlan& plan);
Result<std::vector<LabHost>> parse_state(const std::string& text);

// kNotFound names the hosts there are.
Result<LabHost> find_host(const std::vector<LabHost>& hosts, const std::string& name);

// For a person who wants to read it: words with spaces are quoted.
std::string command_text(const Command& command);

}  // namespace isthmus::apps
