// What the enumerators of verbs are called, in the words programs are used to read.
#include <infiniband/verbs.h>

#include <array>
#include <cstddef>

namespace {

constexpr const char* kUnknown = "unknown";

constexpr std::array kStatusNames = {
    "success",
    "local length error",
    "local QP operation error",
    "local EE context operation error",
    "local protection error",
    "Work Request Flushed Error",
    "memory management operation error",
    "bad response error",
    "local access error",
    "remote invalid request error",
    "remote access error",
    "remote operation error",
    "transport retry counter exceeded",
    "RNR retry counter exceeded",
    "local RDD violation error",
    "remote invalid RD request",
    "aborted error",
    "invalid EE context number",
    "invalid EE context state",
    "fatal error",
    "response timeout error",
    "general error",
    "TM error",
    "TM software rendezvous",
};
static_assert(kStatusNames.size() == IBV_WC_TM_RNDV_INCOMPLETE + 1);

constexpr std::array kEventNames = {
    "CQ error",
    "local work queue catastrophic error",
    "invalid request local work queue error",
    "local access violation work queue error",
    "communication established",
    "send queue drained",
    "path migrated",
    "path migration request error",
    "local catastrophic error",
    "port active",
    "port error",
    "LID change",
    "P_Key change",
    "SM change",
    "SRQ catastrophic error",
    "SRQ limit reached",
    "last WQE reached",
    "client reregistration",
    "GID table change",
    "WQ fatal",
};
static_assert(kEventNames.size() == IBV_EVENT_WQ_FATAL + 1);

constexpr std::array kNodeNames = {
    kUnknown, "InfiniBand channel adapter", "InfiniBand switch", "InfiniBand router",
    "iWARP NIC", "usNIC", "usNIC UDP", "unspecified",
};
static_assert(kNodeNames.size() == IBV_NODE_UNSPECIFIED + 1);

constexpr std::array kPortStateNames = {
    "no state change (NOP)", "down", "init", "armed", "active", "active defer",
};
static_assert(kPortStateNames.size() == IBV_PORT_ACTIVE_DEFER + 1);

// `value` comes from the program and may be anything.
template <std::size_t count>
const char* name_of(const std::array<const char*, count>& names, int value) {
  return value >= 0 && static_cast<std::size_t>(value) < count
             ? names[static_cast<std::size_t>(value)]
             : kUnknown;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

const char* ibv_wc_status_str(ibv_wc_status status) { return name_of(kStatusNames, status); }

const char* ibv_event_type_str(ibv_event_type event) { return name_of(kEventNames, event); }

const char* ibv_node_type_str(ibv_node_type node_type) { return name_of(kNodeNames, node_type); }

const char* ibv_port_state_str(ibv_port_state state) { return name_of(kPortStateNames, state); }

}  // extern "C"
#pragma GCC visibility pop
