#include "apps/isthmusd_options.h"

#include <CLI/CLI.hpp>
#include <memory>

#include "apps/isthmus_generate.h"
#include "attach/socket_path.h"

namespace isthmus::apps {
namespace {

constexpr const char* kDescription =
    "The daemon of Isthmus: hands out virtual RDMA devices and guards them.\n\n"
    "Programs under `isthmus run` attach to it; where none runs, `isthmus run` starts a private "
    "one. Its operator talks to it with isthmus status, top, policy, capture and channel.\n\n"
    "SIGTERM ends it alone: programs and their connections go on, and come back to the next one at "
    "the same socket. SIGINT ends it for good: peers get a disconnect request, programs a fatal "
    "event. SIGHUP reads the policy file again.";

constexpr const char* kExamples =
    "  isthmusd --detach                          serve the programs of this user\n"
    "  isthmusd --address 127.0.0.2 --socket /tmp/b/isthmusd.sock\n"
    "                                             a second host on this machine\n"
    "  isthmusd --policy policy.toml              say who may connect to whom\n";

std::string is_address(const std::string& text) {
  return wire::IpAddress::parse(text) ? "" : text + " is not an IP address";
}

void declare_options(CLI::App& app, DaemonOptions& options, std::vector<std::string>& addresses) {
  app.footer(kExamples);
  app.set_help_flag("-h,--help", "Print this help");
  app.set_version_flag("--version", "isthmusd " ISTHMUS_VERSION)->description("Print the version");
  app.add_option("--socket", options.socket,
                 "Attach socket (default: $ISTHMUS_SOCKET or the usual place)")
      ->type_name("FILE");
  app.add_option("--address", addresses,
                 "Use this local address only; repeatable (default: all addresses of the host)")
      ->type_name("ADDRESS")
      ->check(CLI::Validator(is_address, ""));
  app.add_option("--policy", options.policy_file,
                 "Policy document, TOML (default: everything is allowed)")
      ->type_name("FILE");
  app.add_option("--cluster-key", options.cluster_key_file,
                 "Secret of a cluster's daemons: by it they know each other's messages")
      ->type_name("FILE");
  app.add_option("--label", options.label,
                 "Name, in policies, of programs that have no label (default: the host's name)")
      ->type_name("TEXT");
  app.add_flag("--private", options.is_private, "End when the last client has gone");
  app.add_flag("--for-everybody", options.for_everybody, "Let other users attach too");
  auto* detach = app.add_flag("--detach", options.detach,
                              "Go into the background once it serves; messages go to a file beside "
                              "the socket");
  app.add_flag_callback("--foreground", [] {}, "Stay in the foreground (default)")
      ->excludes(detach);
}

}  // namespace

CommandDescription describe_daemon_line() {
  DaemonOptions options;
  std::vector<std::string> addresses;
  CLI::App app{kDescription, "isthmusd"};
  declare_options(app, options, addresses);
  return describe(app);
}

ParsedDaemonLine parse_daemon_line(int argc, const char* const* argv) {
  ParsedDaemonLine parsed;
  std::vector<std::string> addresses;
  CLI::App app{kDescription, "isthmusd"};
  declare_options(app, parsed.options, addresses);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    parsed.output = help_text(describe(app), {"isthmusd"});
    return parsed;
  } catch (const CLI::CallForVersion& version) {
    parsed.output = std::string(version.what()) + "\n";
    return parsed;
  } catch (const CLI::ParseError& error) {
    parsed.exit_status = kExitUsage;
    parsed.output = "isthmusd: " + std::string(error.what()) + "\nSee isthmusd --help\n";
    return parsed;
  }
  for (const std::string& text : addresses) {
    parsed.options.addresses.push_back(*wire::IpAddress::parse(text));
  }
  parsed.options.socket_given = !parsed.options.socket.empty();
  if (!parsed.options.socket_given) parsed.options.socket = attach::default_socket_path();
  parsed.run = true;
  return parsed;
}

}  // namespace isthmus::apps
