#include "rdma/memory_region.h"

#include "base/assert.h"
#include "rdma/engine_state.h"

namespace isthmus::rdma {

ProtectionDomain::~ProtectionDomain() { --engine_.pd_count; }

MemoryRegion::MemoryRegion(EngineState& engine, ProtectionDomain& pd, const MemorySpec& spec,
                           std::uint32_t key)
    : engine_(engine), pd_(&pd), spec_(spec), key_(key) {
  ++pd_->in_use;
  ++engine_.window->header.memory_region_count;
  engine_.window->header.registered_bytes += spec_.length;
}

MemoryRegion::~MemoryRegion() {
  engine_.keys.remove(key_);
  --pd_->in_use;
  --engine_.window->header.memory_region_count;
  engine_.window->header.registered_bytes -= spec_.length;
}

MemoryWindow::MemoryWindow(EngineState& engine, ProtectionDomain& pd, ibv_mw_type type,
                           std::uint32_t key)
    : engine_(engine), pd_(pd), type_(type), first_key_(key) {
  ++pd_.in_use;
  ++engine_.window->header.memory_window_count;
}

MemoryWindow::~MemoryWindow() {
  engine_.keys.remove(rkey());
  --pd_.in_use;
  --engine_.window->header.memory_window_count;
}

std::uint32_t MemoryWindow::rkey() const { return engine_.keys.current(first_key_); }

bool MemoryWindow::is_bound_to(const MemoryRegion& region) const {
  return engine_.keys.find(rkey())->region_key == region.lkey();
}

}  // namespace isthmus::rdma
