#include "cluster/directory/directory.h"

#include <unordered_set>

namespace isthmus::cluster {

Result<Revision> Directory::put(std::string_view key, std::string_view value, PutOptions options) {
  const Change change{.kind = ChangeKind::kPut,
                      .key = std::string(key),
                      .value = std::string(value),
                      .expected = options.expected,
                      .lease = options.lease};
  return commit({&change, 1});
}

Result<Revision> Directory::create(std::string_view key, std::string_view value, LeaseId lease) {
  return put(key, value, {.expected = Expected::absent(), .lease = lease});
}

Result<Revision> Directory::erase(std::string_view key, Expected expected) {
  const Change change{
      .kind = ChangeKind::kErase, .key = std::string(key), .value = {}, .expected = expected};
  return commit({&change, 1});
}

Result<void> check_key(std::string_view key) {
  if (key.empty()) return fail(ErrorCode::kInvalid, "a key of the directory has at least one byte");
  if (key.size() > kMaxKeyBytes) {
    return fail(ErrorCode::kInvalid, "a key of %zu bytes; the directory takes %zu", key.size(),
                kMaxKeyBytes);
  }
  return {};
}

Result<void> check_changes(std::span<const Change> changes) {
  if (changes.empty() || changes.size() > kMaxChanges) {
    return fail(ErrorCode::kInvalid, "%zu changes at once; the directory takes 1 to %zu",
                changes.size(), kMaxChanges);
  }
  std::unordered_set<std::string_view> keys;
  std::size_t bytes = 0;
  for (const Change& change : changes) {
    ISTHMUS_TRY_VOID(check_key(change.key));
    if (change.value.size() > kMaxValueBytes) {
      return fail(ErrorCode::kInvalid, "a value of %zu bytes; the directory takes %zu",
                  change.value.size(), kMaxValueBytes);
    }
    if (!keys.insert(change.key).second) {
      return fail(ErrorCode::kInvalid, "two changes of one key in one transaction");
    }
    bytes += change.key.size() + change.value.size();
  }
  if (bytes > kMaxCommitBytes) {
    return fail(ErrorCode::kInvalid, "changes of %zu bytes at once; the directory takes %zu", bytes,
                kMaxCommitBytes);
  }
  return {};
}

Result<void> check_time_to_live(std::uint64_t time_to_live_ms) {
  if (time_to_live_ms == 0 || time_to_live_ms > kMaxTimeToLiveMs) {
    return fail(ErrorCode::kInvalid, "a lease of %llu ms; the directory grants 1 to %llu",
                static_cast<unsigned long long>(time_to_live_ms),
                static_cast<unsigned long long>(kMaxTimeToLiveMs));
  }
  return {};
}

std::string end_of_prefix(std::string_view prefix) {
  std::string end{prefix};
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (!end.empty()) end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

}  // namespace isthmus::cluster
