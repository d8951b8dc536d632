#include "apps/isthmus_doctor_findings.h"

#include <fmt/format.h>

namespace isthmus::apps {
namespace {

// A burst of one path's window is 256 packets of the largest MTU; the kernel accounts each with its
// own overhead, up to twice its size.
constexpr std::uint64_t kGoodReceiveBuffer = 2u << 20;

Finding ok(std::string subject, std::string state) {
  return {FindingLevel::kOk, std::move(subject), std::move(state), ""};
}
Finding warn(std::string subject, std::string state, std::string advice) {
  return {FindingLevel::kWarn, std::move(subject), std::move(state), std::move(advice)};
}
Finding missing(std::string subject, std::string state, std::string advice) {
  return {FindingLevel::kMissing, std::move(subject), std::move(state), std::move(advice)};
}

Finding judge_daemon(const DoctorFacts& facts) {
  if (facts.daemon) return ok("daemon", *facts.daemon + " answers at " + facts.socket);
  if (facts.daemon_denied) {
    return warn("daemon", facts.daemon_problem,
                "become its user, or give --socket another path to have your own");
  }
  return ok("daemon", "none at " + facts.socket + "; `isthmus run` starts a private one");
}

Finding judge_libraries(const DoctorFacts& facts) {
  if (facts.libraries_missing.empty()) {
    std::string found;
    for (const auto& library : facts.libraries) found += (found.empty() ? "" : ", ") + library;
    return ok("libraries", found);
  }
  std::string absent;
  for (const auto& library : facts.libraries_missing) {
    absent += (absent.empty() ? "" : ", ") + library;
  }
  return missing("libraries", absent + " not found beside this program",
                 "install or build all of Isthmus: ./dev build");
}

Finding judge_port(const DoctorFacts& facts) {
  const os::HostFacts& host = facts.host;
  const std::string subject = "UDP port 4791";
  if (host.port_free) return ok(subject, "free");
  if (host.port_owner != 0 && host.port_owner == facts.daemon_process) {
    return ok(subject, "held by the daemon");
  }
  if (host.port_owner_program.starts_with("isthmusd")) {
    return ok(subject, fmt::format("held by isthmusd, pid {}", host.port_owner));
  }
  if (host.port_owner != 0) {
    return missing(subject,
                   fmt::format("held by {}, pid {}", host.port_owner_program, host.port_owner),
                   "end that program, or give isthmusd --address with an address it does not use");
  }
  if (host.rxe_loaded) {
    return missing(subject, "held by the kernel's soft-RoCE",
                   "remove its links (rdma link delete NAME), or work in a network namespace: "
                   "isthmus lab up");
  }
  return warn(subject, "held by a program of another user",
              "if it is an isthmusd of the system, use it: --socket /run/isthmus/isthmusd.sock");
}

Finding judge_kernel_rdma(const os::HostFacts& host) {
  if (host.kernel_devices.empty()) {
    return ok("kernel RDMA devices", "none; under `isthmus run` programs see isthmus0");
  }
  std::string names;
  for (const auto& name : host.kernel_devices) names += (names.empty() ? "" : ", ") + name;
  return ok("kernel RDMA devices", names + "; hidden from programs under `isthmus run`");
}

Finding judge_memory_channel(const os::HostFacts& host) {
  const std::string subject = "memory channel";
  if (host.process_memory) {
    return ok(subject, "processes of one user reach each other's memory: fastest on one host");
  }
  if (host.yama_scope && *host.yama_scope == 1) {
    return ok(subject,
              "restricted by Yama (ptrace_scope 1); programs under `isthmus run` permit "
              "it to each other");
  }
  if (host.yama_scope && *host.yama_scope > 1) {
    return warn(subject,
                fmt::format("forbidden by Yama (ptrace_scope {}): processes of one host use RoCE "
                            "packets, several times slower",
                            *host.yama_scope),
                "sysctl kernel.yama.ptrace_scope=1");
  }
  return warn(subject,
              "process_vm_readv is refused (seccomp?): processes of one host use RoCE "
              "packets, several times slower",
              "in a container, allow it: --cap-add SYS_PTRACE or a seccomp profile with "
              "process_vm_readv and process_vm_writev");
}

Finding judge_receive_buffer(const os::HostFacts& host) {
  const std::string state =
      fmt::format("net.core.rmem_max is {} KiB", host.receive_buffer_max / 1024);
  if (host.receive_buffer_max >= kGoodReceiveBuffer) return ok("receive buffer", state);
  return warn("receive buffer", state + ": bursts are paced down, bandwidth between hosts suffers",
              "sysctl net.core.rmem_max=4194304");
}

Finding judge_offload(const os::HostFacts& host) {
  if (host.udp_segmentation && host.udp_coalescing) {
    return ok("UDP GSO and GRO", "both: many packets in one system call");
  }
  return warn("UDP GSO and GRO",
              std::string(host.udp_segmentation ? "no GRO" : "no GSO") +
                  ": one system call for each packet, about a quarter of the bandwidth",
              "a Linux kernel from 5.0 on has both");
}

Finding judge_checksum(const os::HostFacts& host) {
  if (host.wide_carryless_multiply) return ok("ICRC", "VPCLMULQDQ: the checksum costs little");
  if (host.carryless_multiply) return ok("ICRC", "PCLMULQDQ: the checksum costs little");
  return warn("ICRC", "no carry-less multiplication: the checksum bounds the bandwidth",
              "if this is a virtual machine, give it the host's processor model");
}

Finding judge_namespaces(const os::HostFacts& host) {
  const std::string subject = "network namespaces";
  if (host.network_namespaces && host.ip_program) {
    return ok(subject, "may be made: `isthmus lab up` makes real hosts of them");
  }
  if (host.network_namespaces) {
    return warn(subject, "may be made, but there is no `ip` program: labs use loopback addresses",
                "install iproute2");
  }
  return warn(subject,
              host.user_namespaces ? "only inside a user namespace: labs use loopback addresses"
                                   : "may not be made: labs use loopback addresses",
              "run as root for `isthmus lab up` with network namespaces");
}

}  // namespace

std::vector<Finding> judge(const DoctorFacts& facts) {
  const os::HostFacts& host = facts.host;
  std::vector<Finding> findings;
  findings.push_back(judge_daemon(facts));
  findings.push_back(judge_libraries(facts));
  findings.push_back(judge_port(facts));
  findings.push_back(
      host.socket_steering
          ? ok("socket steering", "the kernel hands each program its own packets")
          : missing("socket steering", "a group of sockets cannot have a BPF program",
                    "use a Linux kernel from 4.5 on, without a seccomp filter for it"));
  findings.push_back(judge_kernel_rdma(host));
  findings.push_back(judge_memory_channel(host));
  findings.push_back(judge_receive_buffer(host));
  findings.push_back(judge_offload(host));
  findings.push_back(judge_checksum(host));
  findings.push_back(
      host.ipv6 ? ok("IPv6", "available")
                : warn("IPv6", "none: no IPv6 GIDs", "enable it in the kernel or the container"));
  findings.push_back(judge_namespaces(host));
  findings.push_back(ok("user", host.root ? "root: namespaces and low ports are possible"
                                          : "not root: nothing but labs with namespaces needs it"));
  findings.push_back(ok("kernel", "Linux " + host.kernel));
  return findings;
}

const char* level_name(FindingLevel level) {
  switch (level) {
    case FindingLevel::kOk:
      return "ok";
    case FindingLevel::kWarn:
      return "warn";
    case FindingLevel::kMissing:
      return "missing";
  }
  return "";
}

}  // namespace isthmus::apps
