// What each subcommand of `isthmus` was asked, and the function that does it.
//
// isthmus_command_line.cc fills these structs from the words of the command line; the functions
// return the exit status of the process, or the error to print.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "apps/isthmus_memory_options.h"
#include "base/result.h"

namespace isthmus::apps {

// Exit statuses, documented in the man page of isthmus.
constexpr int kExitDone = 0;
constexpr int kExitFailed = 1;         // Tried and failed, or a check said no.
constexpr int kExitUsage = 2;          // The command line makes no sense.
constexpr int kExitNoDaemon = 3;       // No isthmusd answers at the socket.
constexpr int kExitDenied = 4;         // The daemon or the kernel does not let this user.
constexpr int kExitNotRunnable = 126;  // As in a shell: found, cannot be run.
constexpr int kExitNotFound = 127;     // As in a shell: no such program.

using CommandResult = Result<int>;

struct GlobalOptions {
  std::string socket;  // Attach socket; empty: the usual place.
};

struct RunOptions {
  std::vector<std::string> command;  // Program and its arguments.
  std::string label;                 // Name of the instance; empty: the daemon's choice.
  std::string channel;               // "auto" or "roce"; empty: the environment decides.
  // For the private daemon, when one has to be started.
  std::vector<std::string> addresses;
  std::string policy_file;
  std::string cluster_key_file;
  // Far memory, when the sizes are given.
  std::string local_memory;  // As written: isthmus_run_memory.h reads them.
  std::string far_memory;
  std::vector<std::string> memory_nodes;  // Empty: as the directory says.
  std::string directory;                  // As in isthmus_directory.h.
  std::uint32_t replicas = 1;
  bool encrypt = false;
  std::string prefetch;  // Empty: adaptive.
  std::string faults;    // Empty: auto.
  std::string report_file;  // Empty: no report.
};

struct StatusOptions {
  bool json = false;
  bool queue_pairs = false;     // One line for each queue pair.
  bool memory_regions = false;  // One line for each memory region and window.
};

struct TopOptions {
  double interval_seconds = 1;
  bool once = false;
};

struct DoctorOptions {
  bool json = false;
};

struct PolicyOptions {
  std::string file;  // "-": standard input.
  bool json = false;
};

struct CaptureOptions {
  std::string file;         // pcapng; "-": standard output; empty: lines of text instead.
  std::uint32_t qpn = 0;    // 0: all.
  std::uint64_t count = 0;  // 0: no limit.
  double seconds = 0;       // 0: no limit.
};

struct ChannelOptions {
  std::string kind;  // "roce" or "memory".
  std::uint32_t qpn = 0;
  bool all = false;
};

struct LabOptions {
  std::string name = "lab";
  std::uint32_t hosts = 2;
  std::uint32_t network = 77;  // 10.N.0.0/24 and fdNN::/64, or 127.N.0.0/24.
  bool loopback = false;       // Loopback addresses even as root.
  bool dry_run = false;
  bool json = false;
  bool plain = false;  // exec without `isthmus run`.
  std::string policy_file;
  std::string host;
  std::vector<std::string> command;
};

struct MemoryOptions {
  MemoryServeOptions serve;
  std::string directory;  // As in isthmus_directory.h.
  std::string node;       // Its name in the directory.
  bool undo = false;      // Of drain.
  bool wait = false;
  bool json = false;
  std::int32_t process_id = 0;  // Of stats, top and map. 0: all programs.
  double interval_seconds = 1;  // Of top.
  bool once = false;
  std::string svg_file;  // Of map; empty: text.
};

struct VersionOptions {
  bool json = false;
};

struct GenerateOptions {
  std::string what;    // man, bash or zsh
  std::string folder;  // man: one file for each command goes there.
};

// In isthmus_run.cc; the others in the file of their command.
CommandResult run_program(const GlobalOptions& global, const RunOptions& options);
CommandResult show_status(const GlobalOptions& global, const StatusOptions& options);
CommandResult show_top(const GlobalOptions& global, const TopOptions& options);
CommandResult examine_host(const GlobalOptions& global, const DoctorOptions& options);
CommandResult check_policy(const GlobalOptions& global, const PolicyOptions& options);
CommandResult apply_policy(const GlobalOptions& global, const PolicyOptions& options);
CommandResult show_policy(const GlobalOptions& global, const PolicyOptions& options);
CommandResult capture_packets(const GlobalOptions& global, const CaptureOptions& options);
CommandResult switch_channel(const GlobalOptions& global, const ChannelOptions& options);
CommandResult lab_up(const GlobalOptions& global, const LabOptions& options);
CommandResult lab_down(const GlobalOptions& global, const LabOptions& options);
CommandResult lab_exec(const GlobalOptions& global, const LabOptions& options);
CommandResult lab_status(const GlobalOptions& global, const LabOptions& options);
CommandResult serve_memory(const GlobalOptions& global, const MemoryOptions& options);
CommandResult list_memory(const MemoryOptions& options);
CommandResult drain_memory(const MemoryOptions& options);
CommandResult show_memory_stats(const MemoryOptions& options);
CommandResult show_memory_top(const MemoryOptions& options);
CommandResult show_memory_map(const MemoryOptions& options);
CommandResult show_version(const GlobalOptions& global, const VersionOptions& options);

}  // namespace isthmus::apps
