// Context: one open device: an attachment to the daemon, an engine and who moves it along.
//
// Threading: `lock` guards the engine and everything made by it. Two contexts share nothing on
// their data paths, so that one of them can be used from a signal handler that interrupted the
// other; the data path of a context allocates nothing either.
//
// After fork() the child's copy of a context is inherited: its memory is there, its thread and
// its device are the parent's. Every function that would need them fails with EIO.
#pragma once

#include <infiniband/verbs.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <vector>

#include "attach/attach_client.h"
#include "base/result.h"
#include "os/file_identity.h"
#include "rdma/engine.h"
#include "rdma/udp_port.h"
#include "verbs/async_events.h"
#include "verbs/context_lock.h"
#include "verbs/device_facts.h"
#include "verbs/objects.h"
#include "verbs/progress.h"

namespace isthmus::verbs {

// What a program may have of what the engine does not count. Advertised and enforced.
constexpr std::uint32_t kMaxProtectionDomains = 32768;
constexpr std::uint32_t kMaxCompletionQueues = 65536;
constexpr std::uint32_t kMaxAddressHandles = 1u << 20;
constexpr std::size_t kMaxDeviceMemoryBytes = 4u << 20;  // Of one context.
constexpr int kCompletionVectors = 1;

// Everything a program made and has not destroyed; what is left is freed with the context.
struct ContextObjects {
  std::unordered_set<Pd*> pds;
  std::unordered_set<Mr*> mrs;
  std::unordered_set<Mw*> mws;
  std::unordered_set<Cq*> cqs;
  std::unordered_set<Srq*> srqs;
  std::unordered_set<Qp*> qps;
  std::unordered_set<Xrcd*> xrcds;
  std::unordered_set<FlowSteering*> flows;
  std::unordered_set<DeviceMemory*> device_memories;
  std::uint32_t address_handles = 0;
  std::size_t device_memory_bytes = 0;
  std::map<os::FileIdentity, std::weak_ptr<rdma::XrcDomain>> xrc_files;
};

class Context final : public rdma::EngineListener {
 public:
  static Result<std::unique_ptr<Context>> open(ibv_device& device,
                                               std::unique_ptr<attach::AttachClient> attachment);
  ~Context() override;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  static Context& of(ibv_context* abi) {
    // SAFETY: every ibv_context we hand out is within abi_ of a Context, whose priv leads back.
    return *reinterpret_cast<Context*>(verbs_get_ctx(abi)->priv);
  }
  ibv_context* abi() { return &abi_->verbs.context; }

  // Another ABI object for this device, as ibv_import_device makes it.
  ibv_context* import_again();
  // One of the ABI objects is closed. True: it was the last.
  bool close(ibv_context* abi);
  // The open file of cmd_fd: it stands for the context when its descriptor is handed on.
  const os::FileIdentity& command_file() const { return command_file_; }

  // In the child, after fork().
  void become_inherited();
  bool is_inherited() const { return inherited_; }

  rdma::Engine& engine() { return *engine_; }
  Progress& progress() { return *progress_; }
  attach::AttachClient& attachment() { return *attachment_; }

  // Takes the lock for a moment.
  DeviceFacts facts();

  // The daemon's word on the connection that `attr` would make of `pair`. Without the lock: it
  // asks the daemon. kDenied is logged.
  Result<rdma::Admission> admit(const rdma::QueuePair& pair, const ibv_qp_attr& attr);
  // A QP is gone or reset: the daemon need not watch over its connection any more.
  void release(std::uint32_t qpn);

  ContextLock lock;
  ContextObjects objects;
  AsyncEvents async_events;
  std::atomic<std::uint32_t> next_handle = 1;  // Of objects that the engine does not number.

 private:
  // Newer releases put new functions in front of the ones we know.
  struct Abi {
    std::byte room_for_newer_layouts[512]{};
    verbs_context verbs{};
  };

  Context(ibv_device& device, std::unique_ptr<attach::AttachClient> attachment);
  Result<void> start();
  Result<std::unique_ptr<rdma::FramePort>> open_frame_port();
  void fill_operations(Abi& abi);
  void serve_daemon();
  void apply(const attach::AttachEvent& event);
  Result<void> start_capture(const os::Fd& file);
  void free_objects();

  void on_completion_event(rdma::CompletionQueue& queue) override;
  void on_async_event(ibv_event_type type, rdma::QueuePair* pair, rdma::CompletionQueue* queue,
                      rdma::SharedReceiveQueue* shared) override;

  std::unique_ptr<Abi> make_abi();

  ibv_device& device_;
  os::Fd command_fd_;
  os::FileIdentity command_file_;
  std::unique_ptr<Abi> abi_;
  std::vector<std::unique_ptr<Abi>> imported_;
  bool abi_closed_ = false;  // An imported one is still open.
  bool inherited_ = false;
  std::unique_ptr<attach::AttachClient> attachment_;
  std::unique_ptr<rdma::UdpPort> port_;
  std::unique_ptr<rdma::Engine> engine_;
  std::unique_ptr<Progress> progress_;
  DeviceFacts facts_;
};

// The error as verbs functions return it, errno set too.
int verbs_error(const Error& error);
int verbs_error(int error_number);

// For functions that return an object.
template <class Object = std::nullptr_t>
Object no_object(int error_number) {
  verbs_error(error_number);
  return nullptr;
}
inline std::nullptr_t no_object(const Error& error) {
  verbs_error(error);
  return nullptr;
}

}  // namespace isthmus::verbs
