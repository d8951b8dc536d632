#include "apps/isthmus_command_line.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <memory>
#include <utility>

#include "apps/isthmus_generate.h"
#include "apps/isthmusd_options.h"

namespace isthmus::apps {
namespace {

// Everything the parser writes into, and the commands that read it.
struct Parser {
  GlobalOptions global;
  RunOptions run;
  StatusOptions status;
  TopOptions top;
  DoctorOptions doctor;
  PolicyOptions policy;
  CaptureOptions capture;
  ChannelOptions channel;
  LabOptions lab;
  MemoryOptions memory;
  VersionOptions version;
  GenerateOptions generate;
  std::string qpn;
  std::string channel_target;

  CLI::App app{"Direct RDMA for every program: no NIC, no root, no kernel module.", "isthmus"};
  std::function<CommandResult()> chosen;
};

// CLI11 has no place for examples; its footer carries them to describe().
void examples(CLI::App& command, const std::string& lines) { command.footer(lines); }

void add_socket(CLI::App& command, Parser& p) {
  command
      .add_option("--socket", p.global.socket,
                  "Attach socket of the daemon (default: $ISTHMUS_SOCKET or the usual place)")
      ->type_name("FILE");
}

CLI::App& add(Parser& p, CLI::App& parent, const std::string& name, const std::string& summary,
              std::function<CommandResult()> work) {
  CLI::App* command = parent.add_subcommand(name, summary);
  command->callback([&p, work = std::move(work)] { p.chosen = work; });
  return *command;
}

Result<std::uint32_t> parse_qpn(const std::string& text) {
  char* end = nullptr;
  const unsigned long value = std::strtoul(text.c_str(), &end, 0);
  if (text.empty() || *end != '\0' || value == 0 || value >= 1u << 24) {
    return fail(ErrorCode::kInvalid,
                "'%s' is no QP number: write 1 to 0xffffff, as `isthmus status --qps` shows it",
                text.c_str());
  }
  return static_cast<std::uint32_t>(value);
}

void add_run_memory(CLI::App& command, Parser& p) {
  command
      .add_option("--local-memory", p.run.local_memory,
                  "How much of the program's memory may be here, as 256M")
      ->type_name("SIZE");
  command
      .add_option("--far-memory", p.run.far_memory,
                  "How much memory it may have in all; what is not here is on memory nodes")
      ->type_name("SIZE");
  command
      .add_option("--memory-node", p.run.memory_nodes,
                  "A memory node, ADDRESS[:PORT] (repeatable; default: those of the directory)")
      ->type_name("ADDRESS")
      ->allow_extra_args(false);
  command
      .add_option("--directory", p.run.directory,
                  "Where memory nodes are found: a SQLite file or etcd://HOST:PORT (default: "
                  "$ISTHMUS_DIRECTORY or the usual place)")
      ->type_name("FILE");
  command.add_option("--replicas", p.run.replicas, "On how many memory nodes each page is kept")
      ->type_name("COUNT")
      ->check(CLI::Range(1, 2))
      ->capture_default_str();
  command.add_flag("--encrypt", p.run.encrypt, "Memory nodes see ciphertext only (AES-256-GCM)")
      ->needs("--far-memory");
  command
      .add_option("--prefetch", p.run.prefetch,
                  "What is fetched together with a page that is needed; default adaptive")
      ->check(CLI::IsMember({"none", "next", "adaptive"}));
  command
      .add_option("--faults", p.run.faults,
                  "Who serves page faults: the thread itself (signal), which catches all system "
                  "calls and works for any user, or a thread beside it (message), for root; "
                  "default: message where allowed")
      ->check(CLI::IsMember({"auto", "signal", "message"}));
  command
      .add_option("--report", p.run.report_file,
                  "Write a page there at the end: fault times, network, prefetching")
      ->type_name("FILE.html")
      ->needs("--far-memory");
}

void add_run(Parser& p) {
  CLI::App& command = add(p, p.app, "run", "Run a program with RDMA devices of this host",
                          [&p] { return run_program(p.global, p.run); });
  add_socket(command, p);
  command.add_option("--label", p.run.label, "Name of this instance, for policy and status")
      ->type_name("NAME");
  command
      .add_option("--channel", p.run.channel,
                  "Between processes of one host: auto takes memory where the kernel allows it")
      ->check(CLI::IsMember({"auto", "roce"}));
  command
      .add_option("--address", p.run.addresses,
                  "Local address of a private daemon (repeatable; default: all)")
      ->type_name("ADDRESS")
      ->allow_extra_args(false);
  command.add_option("--policy", p.run.policy_file, "Policy document of a private daemon")
      ->type_name("FILE");
  command.add_option("--cluster-key", p.run.cluster_key_file, "Cluster key of a private daemon")
      ->type_name("FILE");
  add_run_memory(command, p);
  command.prefix_command();
  command.description(
      "Run a program with RDMA devices of this host.\n\n"
      "The program finds Isthmus's libibverbs and librdmacm in place of the system's. When no "
      "daemon answers, a private one is started, which ends with its last program. The exit "
      "status is the program's.\n\n"
      "With --local-memory and --far-memory, what the program allocates lies on memory nodes "
      "(isthmus memory serve) except for what it uses most. Each program that it starts has the "
      "same limits, and memory of its own. Stacks, code, files and shared memory stay local and "
      "are not counted. Where far memory cannot be used, the exit status is 125.");
  examples(command,
           "  isthmus run -- ibv_devinfo\n"
           "  isthmus run --label server -- rping -s -a 127.0.0.1\n"
           "  isthmus run --channel roce -- ib_write_bw -d isthmus0\n"
           "  isthmus run --local-memory 256M --far-memory 4G -- redis-server\n");
}

void add_status(Parser& p) {
  CLI::App& command =
      add(p, p.app, "status", "Show the programs attached to this host and what they do",
          [&p] { return show_status(p.global, p.status); });
  add_socket(command, p);
  command.add_flag("--json", p.status.json, "Print JSON");
  command.add_flag("--qps", p.status.queue_pairs, "Show each queue pair");
  command.add_flag("--memory", p.status.memory_regions, "Show each memory region and window");
  examples(command,
           "  isthmus status\n"
           "  isthmus status --qps --memory\n"
           "  isthmus status --json | jq '.functions[].program'\n");
}

void add_top(Parser& p) {
  CLI::App& command = add(p, p.app, "top", "Show traffic live; q or ctrl-C ends it",
                          [&p] { return show_top(p.global, p.top); });
  add_socket(command, p);
  command.add_option("-i,--interval", p.top.interval_seconds, "Seconds between two pictures")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 60.0))
      ->capture_default_str();
  command.add_flag("--once", p.top.once, "Print one picture and end");
  examples(command, "  isthmus top\n  isthmus top --once -i 2\n");
}

void add_doctor(Parser& p) {
  CLI::App& command =
      add(p, p.app, "doctor", "Say what this host offers, what is missing and what it would bring",
          [&p] { return examine_host(p.global, p.doctor); });
  add_socket(command, p);
  command.add_flag("--json", p.doctor.json, "Print JSON");
  command.description(
      "Say what this host offers, what is missing and what it would bring.\n\n"
      "Each line is ok, warn (works, but slower or narrower) or missing (something will not work) "
      "with what to do about it. The exit status is 1 when something is missing.");
  examples(command, "  isthmus doctor\n  isthmus doctor --json\n");
}

void add_policy(Parser& p) {
  CLI::App* policy =
      p.app.add_subcommand("policy", "Check, apply and show who may connect to whom");
  policy->require_subcommand(1);
  policy->description(
      "Check, apply and show who may connect to whom.\n\n"
      "A policy document is TOML; docs/policy.md describes it. A new document takes effect at "
      "once: connections it no longer allows are torn down.");
  examples(*policy,
           "  isthmus policy check policy.toml\n"
           "  isthmus policy apply policy.toml\n"
           "  isthmus policy show\n");

  CLI::App& check = add(p, *policy, "check", "Read a document and say what is wrong or odd in it",
                        [&p] { return check_policy(p.global, p.policy); });
  add_socket(check, p);
  check.add_option("file", p.policy.file, "The document; - is standard input")
      ->type_name("FILE")
      ->required();
  check.description(
      "Read a document and say what is wrong or odd in it.\n\n"
      "Needs no daemon. Where one answers, also says which live connections the document would "
      "end. The exit status is 1 when the document cannot be used.");
  examples(check, "  isthmus policy check policy.toml\n");

  CLI::App& apply = add(p, *policy, "apply", "Put a document in force on the running daemon",
                        [&p] { return apply_policy(p.global, p.policy); });
  add_socket(apply, p);
  apply.add_option("file", p.policy.file, "The document; - is standard input")
      ->type_name("FILE")
      ->required();
  examples(apply, "  isthmus policy apply policy.toml\n");

  CLI::App& show =
      add(p, *policy, "show", "Show the document in force and which rule decides each connection",
          [&p] { return show_policy(p.global, p.policy); });
  add_socket(show, p);
  show.add_flag("--json", p.policy.json, "Print JSON");
  examples(show, "  isthmus policy show\n");
}

void add_capture(Parser& p) {
  CLI::App& command =
      add(p, p.app, "capture", "Write the packets of this host's queue pairs as pcapng",
          [&p]() -> CommandResult {
            if (!p.qpn.empty()) p.capture.qpn = ISTHMUS_TRY(parse_qpn(p.qpn));
            return capture_packets(p.global, p.capture);
          });
  add_socket(command, p);
  command
      .add_option("-w,--write", p.capture.file,
                  "Where to write; - is standard output, without it a line for each packet")
      ->type_name("FILE");
  command.add_option("--qp", p.qpn, "Only this queue pair")->type_name("QPN");
  command.add_option("-c,--count", p.capture.count, "End after this many packets")
      ->type_name("COUNT");
  command.add_option("--seconds", p.capture.seconds, "End after this time")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.0, 1e9));
  command.description(
      "Write the packets of this host's queue pairs as pcapng.\n\n"
      "Both channels are captured: what the memory channel moves without packets appears as the "
      "RoCEv2 packets that it stands for, and is marked by a comment. Wireshark and tshark "
      "dissect the file. Ctrl-C ends the capture.");
  examples(command,
           "  isthmus capture --count 20\n"
           "  isthmus capture -w out.pcapng --seconds 10\n"
           "  isthmus capture -w - | tshark -r -\n");
}

void add_channel(Parser& p) {
  CLI::App& command =
      add(p, p.app, "channel", "Switch live queue pairs between the memory and the RoCE channel",
          [&p]() -> CommandResult {
            p.channel.all = p.channel_target == "all";
            if (!p.channel.all) p.channel.qpn = ISTHMUS_TRY(parse_qpn(p.channel_target));
            return switch_channel(p.global, p.channel);
          });
  add_socket(command, p);
  command.add_option("kind", p.channel.kind, "The channel to use from now on")
      ->check(CLI::IsMember({"roce", "memory"}))
      ->required();
  command.add_option("qp", p.channel_target, "A QP number, or all")->type_name("QPN")->required();
  command.description(
      "Switch live queue pairs between the memory and the RoCE channel.\n\n"
      "Nothing is lost or repeated; programs notice only another speed. A queue pair whose peer "
      "is not on this host, or not within reach, stays on RoCE.");
  examples(command, "  isthmus channel roce all\n  isthmus channel memory 0x4001\n");
}

void add_lab_name(CLI::App& command, Parser& p) {
  command.add_option("--name", p.lab.name, "Name of the lab, to have several")
      ->type_name("NAME")
      ->capture_default_str();
}

void add_lab_up(Parser& p, CLI::App& lab) {
  CLI::App& up = add(p, lab, "up", "Make the hosts and start their daemons",
                     [&p] { return lab_up(p.global, p.lab); });
  add_lab_name(up, p);
  up.add_option("--hosts", p.lab.hosts, "How many")
      ->type_name("COUNT")
      ->check(CLI::Range(1, 64))
      ->capture_default_str();
  up.add_flag("--loopback", p.lab.loopback, "Loopback addresses, even as root");
  up.add_option("--network", p.lab.network, "Hosts are 10.N.0.1... or 127.N.0.1...")
      ->type_name("N")
      ->check(CLI::Range(1, 99))
      ->capture_default_str();
  up.add_option("--policy", p.lab.policy_file, "Policy document of every host")->type_name("FILE");
  up.add_flag("--dry-run", p.lab.dry_run, "Print what would be done");
  examples(up, "  isthmus lab up --hosts 3\n  isthmus lab up --loopback --dry-run\n");
}

void add_lab_exec(Parser& p, CLI::App& lab) {
  CLI::App& exec = add(p, lab, "exec", "Run a program on a host of the lab",
                       [&p] { return lab_exec(p.global, p.lab); });
  add_lab_name(exec, p);
  exec.add_flag("--plain", p.lab.plain, "Without `isthmus run`: no RDMA devices");
  exec.add_option("host", p.lab.host, "One that `isthmus lab status` shows, such as h1")
      ->type_name("HOST")
      ->required();
  exec.prefix_command();
  exec.description(
      "Run a program on a host of the lab.\n\n"
      "A word @h2 of the command is replaced by the address of host h2. The exit status is the "
      "program's.");
  examples(exec,
           "  isthmus lab exec h1 -- rping -s -a @h1\n"
           "  isthmus lab exec h2 -- rping -c -a @h1 -C 3 -V\n"
           "  isthmus lab exec --plain h1 -- ip address\n");
}

void add_lab(Parser& p) {
  CLI::App* lab = p.app.add_subcommand("lab", "Several hosts on this machine, to try and to test");
  lab->require_subcommand(1);
  lab->description(
      "Several hosts on this machine, to try and to test.\n\n"
      "As root they are network namespaces on one bridge; otherwise loopback addresses. Each has "
      "an isthmusd of its own; all share a cluster key.");
  examples(*lab,
           "  isthmus lab up --hosts 2\n"
           "  isthmus lab exec h1 -- ib_write_bw -d isthmus0 &\n"
           "  isthmus lab exec h2 -- ib_write_bw -d isthmus0 @h1\n"
           "  isthmus lab down\n");
  add_lab_up(p, *lab);
  CLI::App& down = add(p, *lab, "down", "End the daemons and remove the hosts; fine without any",
                       [&p] { return lab_down(p.global, p.lab); });
  add_lab_name(down, p);
  down.add_flag("--dry-run", p.lab.dry_run, "Print what would be done");
  examples(down, "  isthmus lab down\n");
  add_lab_exec(p, *lab);
  CLI::App& status = add(p, *lab, "status", "Show the hosts of the lab",
                         [&p] { return lab_status(p.global, p.lab); });
  add_lab_name(status, p);
  status.add_flag("--json", p.lab.json, "Print JSON");
  examples(status, "  isthmus lab status\n");
}

void add_directory(CLI::App& command, Parser& p) {
  command
      .add_option("--directory", p.memory.directory,
                  "SQLite file or etcd://HOST:PORT (default: $ISTHMUS_DIRECTORY or the usual "
                  "place)")
      ->type_name("FILE");
}

void add_memory_serve(Parser& p, CLI::App& memory) {
  CLI::App& serve = add(p, memory, "serve", "Donate memory of this host",
                        [&p] { return serve_memory(p.global, p.memory); });
  add_socket(serve, p);
  declare_serve_options(serve, p.memory.serve);
  serve.description(
      "Donate memory of this host.\n\n"
      "Programs of other hosts, and of this one, keep pages there that have no room where they "
      "run. Memory is taken when it is used, and zeroed when it is given back. The directory "
      "tells where the node is; while it is away the node serves on. SIGTERM ends it, and with "
      "it what it has lent.");
  examples(serve,
           "  isthmus memory serve --size 8G\n"
           "  isthmus memory serve --size 512M --bind 10.0.0.1 --directory etcd://10.0.0.9:2379\n");
}

void add_memory_watch(Parser& p, CLI::App& memory) {
  CLI::App& stats = add(p, memory, "stats", "Show what far memory does for programs",
                        [&p] { return show_memory_stats(p.memory); });
  stats.add_option("pid", p.memory.process_id, "Of this program in full; without: all, a line each")
      ->type_name("PID");
  stats.add_flag("--json", p.memory.json, "Print JSON");
  examples(stats, "  isthmus memory stats\n  isthmus memory stats $(pidof redis-server)\n");

  CLI::App& top = add(p, memory, "top", "The same, drawn anew every interval",
                      [&p] { return show_memory_top(p.memory); });
  top.add_option("pid", p.memory.process_id, "Of this program alone")->type_name("PID");
  top.add_option("--interval", p.memory.interval_seconds, "Time between two pictures")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.1, 3600.0))
      ->capture_default_str();
  top.add_flag("--once", p.memory.once, "One picture, as text");
  examples(top, "  isthmus memory top\n");

  CLI::App& map = add(p, memory, "map", "Show where each page of a program is",
                      [&p] { return show_memory_map(p.memory); });
  map.add_option("pid", p.memory.process_id, "The program")->type_name("PID")->required();
  map.add_option("--svg", p.memory.svg_file, "Write a picture there instead of text")
      ->type_name("FILE");
  examples(map, "  isthmus memory map 4711\n  isthmus memory map --svg pages.svg 4711\n");
}

void add_memory(Parser& p) {
  CLI::App* memory = p.app.add_subcommand("memory", "Memory of other hosts: donate it, show it");
  memory->require_subcommand(1);
  memory->description(
      "Memory of other hosts: donate it, show it.\n\n"
      "A memory node donates memory; the directory, a file or etcd, knows all nodes.");
  examples(*memory,
           "  isthmus memory serve --size 8G &\n"
           "  isthmus memory ls\n"
           "  isthmus memory drain --wait host1\n"
           "  isthmus memory stats\n");
  add_memory_serve(p, *memory);

  CLI::App& list = add(p, *memory, "ls", "Show the memory nodes that the directory knows",
                       [&p] { return list_memory(p.memory); });
  add_directory(list, p);
  list.add_flag("--json", p.memory.json, "Print JSON");
  examples(list, "  isthmus memory ls\n  isthmus memory ls --json | jq '.[].free'\n");

  CLI::App& drain = add(p, *memory, "drain", "Let a memory node lend no more",
                        [&p] { return drain_memory(p.memory); });
  add_directory(drain, p);
  drain.add_flag("--wait", p.memory.wait, "Until it has lent nothing any more");
  drain.add_flag("--undo", p.memory.undo, "Let it lend again");
  drain.add_option("node", p.memory.node, "Its name, as `isthmus memory ls` shows it")
      ->type_name("NAME")
      ->required();
  drain.description(
      "Let a memory node lend no more.\n\n"
      "Programs keep what they have there until they end. A node that is started again under the "
      "same name is still drained, until --undo.");
  examples(drain, "  isthmus memory drain --wait host1\n  isthmus memory drain --undo host1\n");
  add_memory_watch(p, *memory);
}

void add_version(Parser& p) {
  CLI::App& command = add(p, p.app, "version", "Print the versions of the program and the daemon",
                          [&p] { return show_version(p.global, p.version); });
  add_socket(command, p);
  command.add_flag("--json", p.version.json, "Print JSON");
  examples(command, "  isthmus version\n");
}

void add_generate(Parser& p) {
  CLI::App& command =
      add(p, p.app, "_generate", "Print man pages or completion made from these definitions",
          [&p] { return generate(describe_command_line(), describe_daemon_line(), p.generate); });
  command.group("");  // Hidden: for packaging.
  command.add_option("what", p.generate.what)
      ->check(CLI::IsMember({"man", "bash", "zsh", "markdown"}))
      ->required();
  command.add_option("folder", p.generate.folder, "man: where the pages go");
}

std::unique_ptr<Parser> make_parser() {
  auto parser = std::make_unique<Parser>();
  Parser& p = *parser;
  p.app.require_subcommand(1);
  p.app.set_help_flag("-h,--help", "Print this help");  // Of all commands: they inherit it.
  add_socket(p.app, p);
  p.app.set_version_flag("--version", "isthmus " ISTHMUS_VERSION)->description("Print the version");
  add_run(p);
  add_status(p);
  add_top(p);
  add_doctor(p);
  add_policy(p);
  add_capture(p);
  add_channel(p);
  add_lab(p);
  add_memory(p);
  add_version(p);
  add_generate(p);
  examples(p.app,
           "  isthmus run -- ibv_devinfo            a device where there is no RDMA NIC\n"
           "  isthmus run -- rping -s -a 127.0.0.1  a server; its client is another `isthmus "
           "run`\n"
           "  isthmus status                        who is attached, and what they do\n"
           "  isthmus lab up --hosts 2              two hosts on this machine\n"
           "  isthmus doctor                        what this machine offers\n");
  return parser;
}

// --- likely mistakes -----------------------------------------------------------------------------

std::size_t edit_distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t change = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, change}));
    }
  }
  return row.back();
}

// The message for a first word that is no command, or "".
std::string unknown_command(const CLI::App& app, const std::vector<std::string>& words) {
  std::size_t first = 0;
  while (first < words.size() && words[first].starts_with("-")) {
    first += words[first] == "--socket" ? 2 : 1;
  }
  if (first >= words.size()) return "";
  std::string nearest;
  std::size_t least = 3;  // More mistakes than two are another word.
  for (const CLI::App* command : app.get_subcommands({})) {
    const std::string name = command->get_name();
    if (name == words[first]) return "";
    const std::size_t distance = edit_distance(name, words[first]);
    if (distance < least && !command->get_group().empty()) {
      least = distance;
      nearest = name;
    }
  }
  return "isthmus: unknown command '" + words[first] + "'" +
         (nearest.empty() ? "; see isthmus --help" : "; did you mean '" + nearest + "'?") + "\n";
}

const CLI::App& deepest(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? app : deepest(*chosen.front());
}

std::vector<std::string> path_of(const CLI::App& app) {
  std::vector<std::string> path;
  if (app.get_parent() != nullptr) path = path_of(*app.get_parent());
  path.push_back(app.get_name());
  return path;
}

std::string full_name(const CLI::App& app) {
  std::string name;
  for (const auto& word : path_of(app)) name += (name.empty() ? "" : " ") + word;
  return name;
}

ParsedCommand usage_error(const CLI::App& app, const std::string& message) {
  return {.exit_status = kExitUsage,
          .output = "isthmus: " + message + "\nSee " + full_name(app) + " --help\n",
          .command = {}};
}

}  // namespace

CommandDescription describe_command_line() { return describe(make_parser()->app); }

ParsedCommand parse_command_line(std::vector<std::string> words) {
  // What follows -- belongs to the program to run, whatever it looks like.
  std::vector<std::string> command;
  if (const auto dashes = std::ranges::find(words, "--"); dashes != words.end()) {
    command.assign(dashes + 1, words.end());
    words.erase(dashes, words.end());
  }
  // The command that was chosen points into the parser.
  const std::shared_ptr<Parser> parser = make_parser();
  CLI::App& app = parser->app;
  if (const std::string message = unknown_command(app, words); !message.empty()) {
    return {.exit_status = kExitUsage, .output = message, .command = {}};
  }
  const auto help = [](const CLI::App& asked, int status) {
    return ParsedCommand{.exit_status = status,
                         .output = help_text(describe_command_line(), path_of(asked)),
                         .command = {}};
  };
  if (words.empty()) return help(app, kExitUsage);
  try {
    std::ranges::reverse(words);  // As CLI11 wants them.
    app.parse(words);
  } catch (const CLI::CallForHelp&) {
    return help(deepest(app), kExitDone);
  } catch (const CLI::CallForVersion& version) {
    return {.exit_status = kExitDone, .output = std::string(version.what()) + "\n", .command = {}};
  } catch (const CLI::ParseError& error) {
    return usage_error(deepest(app), error.what());
  }
  const CLI::App& chosen = deepest(app);
  if (chosen.get_prefix_command()) {
    if (command.empty()) command = chosen.remaining();
    if (command.empty()) return usage_error(chosen, full_name(chosen) + " needs a program to run");
  } else if (!command.empty()) {
    return usage_error(
        chosen, full_name(chosen) + " runs no program; what is '" + command.front() + "' for?");
  }
  parser->run.command = command;
  parser->lab.command = command;
  return {.exit_status = kExitDone, .output = "", .command = [parser] { return parser->chosen(); }};
}

}  // namespace isthmus::apps
