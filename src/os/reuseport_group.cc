#include "os/reuseport_group.h"

#include <linux/filter.h>
#include <sys/socket.h>

#include "base/assert.h"
#include "os/udp_socket.h"

namespace isthmus::os {
namespace {

// Where the destination QP number stands in the base transport header: 24 bits from byte 5.
constexpr std::uint32_t kQpNumberOffset = 5;
constexpr std::uint32_t kShiftToTopTenBits = 16 - 10;

// steer_away costs two instructions; a program has at most BPF_MAXINSNS of them.
constexpr std::uint32_t kFixedInstructions = 5;
static_assert(kFixedInstructions + 2 * 1024 <= BPF_MAXINSNS);

sock_filter instruction(std::uint16_t code, std::uint32_t k, std::uint8_t if_true = 0,
                        std::uint8_t if_false = 0) {
  return sock_filter{code, if_true, if_false, k};
}

}  // namespace

ReuseportGroup::ReuseportGroup(const ReuseportGroupOptions& options, std::vector<Fd> members)
    : options_(options),
      members_(std::move(members)),
      steered_away_(options.max_members, false) {}

Result<std::unique_ptr<ReuseportGroup>> ReuseportGroup::create(
    const ReuseportGroupOptions& options) {
  return adopt(options, {});
}

Result<std::unique_ptr<ReuseportGroup>> ReuseportGroup::adopt(const ReuseportGroupOptions& options,
                                                              std::vector<Fd> members) {
  if (members.size() > options.max_members) {
    return fail(ErrorCode::kInvalid, "%zu sockets kept for a group of at most %u", members.size(),
                options.max_members);
  }
  const bool fresh = members.empty();
  std::unique_ptr<ReuseportGroup> group(new ReuseportGroup(options, std::move(members)));
  if (fresh) {
    ISTHMUS_TRY_VOID(group->grow_to_include(0));
  } else {
    group->steered_away_.assign(options.max_members, true);
    ISTHMUS_TRY_VOID(group->attach_program());
  }
  return group;
}

Result<void> ReuseportGroup::grow_to_include(std::uint32_t index) {
  ISTHMUS_ASSERT(index < options_.max_members);
  if (index < size()) return {};
  while (index >= size()) {
    Fd member = ISTHMUS_TRY(open_udp_fd({.address = options_.address,
                                         .port = options_.port,
                                         .sharing = PortSharing::kGroup}));
    if (!members_.empty()) {
      const int locked = 1;
      if (setsockopt(member.get(), SOL_SOCKET, SO_LOCK_FILTER, &locked, sizeof locked) != 0) {
        return fail_errno(errno, "lock the steering program");
      }
    }
    members_.push_back(std::move(member));
  }
  return attach_program();
}

Result<void> ReuseportGroup::steer_away(std::uint32_t index) {
  steered_away_.at(index) = true;
  return attach_program();
}

Result<void> ReuseportGroup::steer_back(std::uint32_t index) {
  if (!steered_away_.at(index)) return {};
  steered_away_.at(index) = false;
  return attach_program();
}

Result<void> ReuseportGroup::attach_program() {
  std::vector<sock_filter> program;
  program.push_back(instruction(BPF_LD | BPF_H | BPF_ABS, kQpNumberOffset));
  program.push_back(instruction(BPF_ALU | BPF_RSH | BPF_K, kShiftToTopTenBits));
  program.push_back(instruction(BPF_JMP | BPF_JGE | BPF_K, size(), 0, 1));
  program.push_back(instruction(BPF_RET | BPF_K, 0));
  for (std::uint32_t index = 1; index < size(); ++index) {
    if (!steered_away_[index]) continue;
    program.push_back(instruction(BPF_JMP | BPF_JEQ | BPF_K, index, 0, 1));
    program.push_back(instruction(BPF_RET | BPF_K, 0));
  }
  program.push_back(instruction(BPF_RET | BPF_A, 0));

  const sock_fprog attached{static_cast<unsigned short>(program.size()), program.data()};
  if (setsockopt(members_.front().get(), SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, &attached,
                 sizeof attached) != 0) {
    return fail_errno(errno, "attach the steering program to port " +
                                 std::to_string(options_.port));
  }
  return {};
}

void ReuseportGroup::drain_member(std::uint32_t index) {
  // The bound keeps a sender that never pauses from holding us here.
  constexpr int kMostDrained = 1 << 16;
  char byte = 0;
  for (int i = 0; i < kMostDrained; ++i) {
    if (recv(member(index).get(), &byte, 1, MSG_DONTWAIT) < 0 && errno != EINTR) return;
  }
}

}  // namespace isthmus::os
