#include "control/keeper_protocol.h"

#include <cstring>

#include "rdma/limits.h"

namespace isthmus::control {
namespace {

std::size_t fds_with(KeeperRecordKind kind) {
  switch (kind) {
    case KeeperRecordKind::kMember:
    case KeeperRecordKind::kNamespace: return 1;
    case KeeperRecordKind::kFunction: return 2;
    case KeeperRecordKind::kForget:
    case KeeperRecordKind::kForgetPlace:
    case KeeperRecordKind::kFinish:
    case KeeperRecordKind::kTakeOver:
    case KeeperRecordKind::kEnd: return 0;
  }
  return SIZE_MAX;  // A kind that there is not comes with no number of descriptors.
}

}  // namespace

Result<KeeperRecord> decode_keeper_record(std::span<const std::byte> message,
                                          std::size_t fd_count) {
  KeeperRecord record;
  if (message.size() != sizeof record) {
    return fail(ErrorCode::kInvalid, "keeper: a message of %zu bytes instead of %zu",
                message.size(), sizeof record);
  }
  std::memcpy(&record, message.data(), sizeof record);
  if (record.magic != kKeeperMagic) {
    return fail(ErrorCode::kInvalid, "keeper: it is of another release of Isthmus");
  }
  if (fd_count != fds_with(record.kind) || record.index >= rdma::kFunctionCount) {
    return fail(ErrorCode::kInvalid, "keeper: record of kind %u with %zu descriptors and index %u",
                static_cast<unsigned>(record.kind), fd_count, record.index);
  }
  return record;
}

std::string keeper_socket_path(const std::string& attach_socket_path) {
  constexpr std::string_view kSuffix = ".sock";
  const bool cut = attach_socket_path.ends_with(kSuffix);
  return (cut ? attach_socket_path.substr(0, attach_socket_path.size() - kSuffix.size())
              : attach_socket_path) +
         ".keeper.sock";
}

}  // namespace isthmus::control
