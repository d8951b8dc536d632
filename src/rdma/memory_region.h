// The objects that memory rights hang on: protection domains, memory regions, memory windows.
//
// Each holds its keys in the engine's KeyTable for as long as it lives.
//
// Threading: shard-confined, under the engine's lock.
#pragma once

#include <infiniband/verbs.h>

#include <cstdint>

#include "rdma/engine.h"

namespace isthmus::rdma {

class ProtectionDomain {
 public:
  ProtectionDomain(EngineState& engine, std::uint32_t number) : engine_(engine), number_(number) {}
  ~ProtectionDomain();
  ProtectionDomain(const ProtectionDomain&) = delete;
  ProtectionDomain& operator=(const ProtectionDomain&) = delete;

  std::uint32_t number() const { return number_; }

  void* cookie = nullptr;
  std::uint32_t in_use = 0;  // Regions, windows, queues and handles of this domain.

 private:
  EngineState& engine_;
  std::uint32_t number_;
};

class XrcDomain {
 public:
  explicit XrcDomain(std::uint32_t number) : number_(number) {}
  std::uint32_t number() const { return number_; }

  void* cookie = nullptr;
  std::uint32_t in_use = 0;

 private:
  std::uint32_t number_;
};

class MemoryRegion {
 public:
  MemoryRegion(EngineState& engine, ProtectionDomain& pd, const MemorySpec& spec,
               std::uint32_t key);
  ~MemoryRegion();
  MemoryRegion(const MemoryRegion&) = delete;
  MemoryRegion& operator=(const MemoryRegion&) = delete;

  std::uint32_t lkey() const { return key_; }
  std::uint32_t rkey() const { return key_; }
  ProtectionDomain& pd() const { return *pd_; }
  const MemorySpec& spec() const { return spec_; }

  void* cookie = nullptr;

 private:
  friend class Engine;
  EngineState& engine_;
  ProtectionDomain* pd_;
  MemorySpec spec_;
  std::uint32_t key_;
};

class MemoryWindow {
 public:
  MemoryWindow(EngineState& engine, ProtectionDomain& pd, ibv_mw_type type, std::uint32_t key);
  ~MemoryWindow();
  MemoryWindow(const MemoryWindow&) = delete;
  MemoryWindow& operator=(const MemoryWindow&) = delete;

  std::uint32_t rkey() const;  // Changes when it is bound.
  ibv_mw_type type() const { return type_; }
  ProtectionDomain& pd() const { return pd_; }
  bool is_bound_to(const MemoryRegion& region) const;

  void* cookie = nullptr;

 private:
  EngineState& engine_;
  ProtectionDomain& pd_;
  ibv_mw_type type_;
  std::uint32_t first_key_;  // Its index is the window's for life.
};

}  // namespace isthmus::rdma
