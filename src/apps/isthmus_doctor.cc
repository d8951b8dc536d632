// isthmus doctor: looks at the host and says what it means for RDMA in user space.
#include <fmt/format.h>

#include <algorithm>

#include "apps/isthmus_doctor_findings.h"
#include "apps/isthmus_json.h"
#include "apps/isthmus_session.h"
#include "os/child_process.h"
#include "os/text_file.h"

namespace isthmus::apps {
namespace {

void look_for_daemon(const GlobalOptions& global, DoctorFacts& facts) {
  facts.socket = attach_socket(global);
  const auto client = connect_to_daemon(global);
  if (!client) {
    facts.daemon_problem = client.error().message;
    facts.daemon_denied = client.error().code == ErrorCode::kDenied;
    return;
  }
  const auto version = (*client)->version();
  if (!version) {
    facts.daemon_problem = version.error().message;
    return;
  }
  facts.daemon = fmt::format("isthmusd {}, pid {},", version->version, version->process_id);
  facts.daemon_process = version->process_id;
}

// Installed: PREFIX/bin/isthmus and PREFIX/lib/isthmus; built: BUILD/bin and BUILD/lib.
void look_for_libraries(DoctorFacts& facts) {
  const std::string program = os::own_program_path();
  const std::string prefix = program.substr(0, program.rfind("/bin/"));
  for (const std::string name : {"libibverbs.so.1", "librdmacm.so.1"}) {
    bool found = false;
    for (const char* folder : {"/lib/isthmus/", "/lib/"}) {
      const std::string path = prefix + folder + name;
      if (!found && os::path_exists(path)) {
        facts.libraries.push_back(path);
        found = true;
      }
    }
    if (!found) facts.libraries_missing.push_back(name);
  }
}

}  // namespace

CommandResult examine_host(const GlobalOptions& global, const DoctorOptions& options) {
  DoctorFacts facts;
  facts.host = os::probe_host();  // First: it makes child processes, gRPC makes threads.
  look_for_daemon(global, facts);
  look_for_libraries(facts);
  const auto findings = judge(facts);
  if (options.json) {
    fmt::print("{}\n", findings_json(findings));
  } else {
    for (const auto& finding : findings) {
      fmt::print("{:8} {:20} {}\n", level_name(finding.level), finding.subject, finding.state);
      if (!finding.advice.empty()) fmt::print("{:29} -> {}\n", "", finding.advice);
    }
  }
  const bool broken = std::ranges::any_of(
      findings, [](const auto& finding) { return finding.level == FindingLevel::kMissing; });
  return broken ? kExitFailed : kExitDone;
}

}  // namespace isthmus::apps
