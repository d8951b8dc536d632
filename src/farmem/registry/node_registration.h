// NodeRegistration: keeps a node's entry in the directory, and hears there whether to drain.
//
// The node serves on while the directory is away; the entry comes back with it. Two nodes of one
// name: the first one stays, the other one says so until it is gone.
//
// Threading: a thread of its own, as the directory may take seconds to answer; the functions of
// RegisteredNode are called there.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/result.h"
#include "cluster/directory/directory.h"
#include "farmem/registry/node_entry.h"
#include "farmem/registry/node_facts.h"
#include "os/fd.h"

namespace isthmus::farmem {

struct RegisteredNode {
  std::string name;
  std::string version;
  std::function<MemoryNodeFacts()> facts;
  std::function<void(bool draining)> set_draining;
  int changed_fd = -1;  // Readable when facts() says something new.
};

struct RegistrationTimes {
  std::uint64_t lease_ms = 15'000;
  std::uint64_t look_ms = 1000;  // How often it looks whether to drain, or tries again.
};

class NodeRegistration {
 public:
  using OpenDirectory = std::function<Result<std::unique_ptr<cluster::Directory>>()>;

  static Result<std::unique_ptr<NodeRegistration>> start(RegisteredNode node, OpenDirectory open,
                                                         RegistrationTimes times = {});
  // Takes the entry back, if the directory answers.
  ~NodeRegistration();
  NodeRegistration(const NodeRegistration&) = delete;
  NodeRegistration& operator=(const NodeRegistration&) = delete;

 private:
  NodeRegistration(RegisteredNode node, OpenDirectory open, RegistrationTimes times)
      : node_(std::move(node)), open_(std::move(open)), times_(times) {}

  void run();
  Result<void> step();
  void forget_directory();
  Result<void> keep_lease();
  Result<void> publish();
  void note(const Result<void>& result);

  const RegisteredNode node_;
  const OpenDirectory open_;
  const RegistrationTimes times_;
  os::Fd wake_;
  std::atomic<bool> stopping_{false};

  // Of the thread.
  std::unique_ptr<cluster::Directory> directory_;
  cluster::LeaseId lease_;
  std::uint64_t kept_ns_ = 0;
  std::string published_;
  std::string complaint_;
  std::thread thread_;
};

}  // namespace isthmus::farmem
