// What this host offers to RDMA in user space: each fact found by trying, not by version numbers.
// For `isthmus doctor`, which says what the facts mean.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace isthmus::os {

struct HostFacts {
  bool root = false;
  std::string kernel;  // Its release.

  // UDP port 4791 on all addresses.
  bool port_free = false;
  std::int32_t port_owner = 0;  // 0: unknown, or the kernel itself.
  std::string port_owner_program;

  bool rxe_loaded = false;
  std::vector<std::string> kernel_devices;  // In /sys/class/infiniband.

  // process_vm_readv of a process of the same user that is not our child.
  bool process_memory = false;
  std::optional<int> yama_scope;  // None: no Yama in this kernel.

  std::uint64_t receive_buffer_max = 0;  // net.core.rmem_max, bytes.
  bool udp_segmentation = false;         // GSO: many packets in one call.
  bool udp_coalescing = false;           // GRO.
  bool socket_steering = false;          // A group of sockets with a BPF program.
  bool ipv6 = false;

  bool carryless_multiply = false;       // PCLMULQDQ
  bool wide_carryless_multiply = false;  // VPCLMULQDQ

  bool network_namespaces = false;  // May make them as it is.
  bool user_namespaces = false;     // May make them in a user namespace.
  bool ip_program = false;          // iproute2
};

HostFacts probe_host();

// Tried, not guessed; also needs the `ip` program.
bool can_make_network_namespaces();

}  // namespace isthmus::os
