#include "preload/call_shapes.h"

#include <sys/syscall.h>

namespace isthmus::preload {
namespace {

constexpr auto kReads = KernelAccess::kReads;
constexpr auto kWrites = KernelAccess::kWrites;

constexpr PointerShape text(std::uint8_t argument) {
  return {PointsTo::kText, kReads, argument};
}
constexpr PointerShape strings(std::uint8_t argument) {
  return {PointsTo::kStrings, kReads, argument};
}
constexpr PointerShape bytes(KernelAccess access, std::uint8_t argument, std::uint8_t count,
                             std::uint8_t unit = 1) {
  return {PointsTo::kBytes, access, argument, count, unit};
}
constexpr PointerShape vectors(KernelAccess access, std::uint8_t argument, std::uint8_t count) {
  return {PointsTo::kVectors, access, argument, count};
}
constexpr CallShape buffer(KernelAccess access, std::uint8_t offset = 0) {
  return {{bytes(access, 1, 2)}, true, offset};
}
constexpr CallShape pieces(KernelAccess access, std::uint8_t offset = 0) {
  return {{vectors(access, 1, 2)}, true, offset};
}

// Calls that move data.
CallShape shape_of_data(long number) {
  switch (number) {
    case SYS_read: return buffer(kWrites);
    case SYS_write: return buffer(kReads);
    case SYS_pread64: return buffer(kWrites, 3);
    case SYS_pwrite64: return buffer(kReads, 3);
    case SYS_readv: return pieces(kWrites);
    case SYS_writev: return pieces(kReads);
    case SYS_preadv:
    case SYS_preadv2: return pieces(kWrites, 3);
    case SYS_pwritev:
    case SYS_pwritev2: return pieces(kReads, 3);
    case SYS_recvfrom: return {{bytes(kWrites, 1, 2)}};
    case SYS_sendto: return {{bytes(kReads, 1, 2), bytes(kReads, 4, 5)}};
    case SYS_process_vm_readv: return {{vectors(kWrites, 1, 2)}};
    case SYS_vmsplice:
    case SYS_process_vm_writev: return {{vectors(kReads, 1, 2)}};
    case SYS_sendmsg: return {{{PointsTo::kMessage, kReads, 1}}};
    case SYS_recvmsg: return {{{PointsTo::kMessage, kWrites, 1}}};
    case SYS_sendmmsg: return {{{PointsTo::kMessages, kReads, 1, 2}}};
    case SYS_recvmmsg: return {{{PointsTo::kMessages, kWrites, 1, 2}}};
    case SYS_bind:
    case SYS_connect: return {{bytes(kReads, 1, 2)}};
    case SYS_setsockopt: return {{bytes(kReads, 3, 4)}};
    case SYS_getdents64:
    case SYS_syslog: return {{bytes(kWrites, 1, 2)}};
    case SYS_getcwd:
    case SYS_getrandom: return {{bytes(kWrites, 0, 1)}};
    case SYS_sched_getaffinity: return {{bytes(kWrites, 2, 1)}};
    case SYS_sched_setaffinity: return {{bytes(kReads, 2, 1)}};
    case SYS_getgroups: return {{bytes(kWrites, 1, 0, 4)}};
    case SYS_setgroups: return {{bytes(kReads, 1, 0, 4)}};
    case SYS_ppoll: return {{bytes(kWrites, 0, 1, 8)}};
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2: return {{bytes(kWrites, 1, 2, 12)}};
    case SYS_semop:
    case SYS_semtimedop: return {{bytes(kReads, 1, 2, 6)}};
    case SYS_msgsnd: return {{bytes(kReads, 1, 2)}};
    case SYS_msgrcv: return {{bytes(kWrites, 1, 2)}};
    case SYS_mq_timedsend: return {{bytes(kReads, 1, 2)}};
    case SYS_mq_timedreceive: return {{bytes(kWrites, 1, 2)}};
#if defined(__x86_64__)  // What others do by the calls above.
    case SYS_poll: return {{bytes(kWrites, 0, 1, 8)}};
    case SYS_epoll_wait: return {{bytes(kWrites, 1, 2, 12)}};
    case SYS_getdents: return {{bytes(kWrites, 1, 2)}};
#endif
    default: return {};
  }
}

// Calls with names in them, and something beside.
CallShape shape_of_names(long number) {
  switch (number) {
    case SYS_execve: return {{text(0), strings(1), strings(2)}};
    case SYS_execveat: return {{text(1), strings(2), strings(3)}};
    case SYS_readlinkat: return {{text(1), bytes(kWrites, 2, 3)}};
    case SYS_getxattr:
    case SYS_lgetxattr: return {{text(0), text(1), bytes(kWrites, 2, 3)}};
    case SYS_fgetxattr: return {{text(1), bytes(kWrites, 2, 3)}};
    case SYS_setxattr:
    case SYS_lsetxattr: return {{text(0), text(1), bytes(kReads, 2, 3)}};
    case SYS_fsetxattr: return {{text(1), bytes(kReads, 2, 3)}};
    case SYS_listxattr:
    case SYS_llistxattr: return {{text(0), bytes(kWrites, 1, 2)}};
    case SYS_flistxattr: return {{bytes(kWrites, 1, 2)}};
    case SYS_removexattr:
    case SYS_lremovexattr: return {{text(0), text(1)}};
    case SYS_add_key:
      return {{text(0), text(1), bytes(kReads, 2, 3)}};
    case SYS_renameat2:
    case SYS_linkat: return {{text(1), text(3)}};
    case SYS_symlinkat: return {{text(0), text(2)}};
    case SYS_pivot_root:
    case SYS_mount: return {{text(0), text(1)}};
#if defined(__x86_64__)
    case SYS_readlink: return {{text(0), bytes(kWrites, 1, 2)}};
    case SYS_rename:
    case SYS_link:
    case SYS_symlink: return {{text(0), text(1)}};
    case SYS_renameat: return {{text(1), text(3)}};
#endif
    default: return {};
  }
}

// Calls with one name.
CallShape shape_of_name(long number) {
  switch (number) {
    case SYS_chdir:
    case SYS_chroot:
    case SYS_truncate:
    case SYS_statfs:
    case SYS_acct:
    case SYS_swapon:
    case SYS_swapoff:
    case SYS_umount2:
    case SYS_memfd_create:
    case SYS_mq_open:
    case SYS_mq_unlink: return {{text(0)}};
    case SYS_openat:
    case SYS_openat2:
    case SYS_newfstatat:
    case SYS_statx:
    case SYS_faccessat:
    case SYS_faccessat2:
    case SYS_mkdirat:
    case SYS_mknodat:
    case SYS_unlinkat:
    case SYS_fchmodat:
    case SYS_fchownat:
    case SYS_utimensat:
    case SYS_inotify_add_watch:
    case SYS_name_to_handle_at:
    case SYS_fremovexattr: return {{text(1)}};
#if defined(__x86_64__)
    case SYS_open:
    case SYS_creat:
    case SYS_stat:
    case SYS_lstat:
    case SYS_access:
    case SYS_mkdir:
    case SYS_rmdir:
    case SYS_unlink:
    case SYS_chmod:
    case SYS_chown:
    case SYS_lchown:
    case SYS_utime:
    case SYS_utimes:
    case SYS_mknod: return {{text(0)}};
    case SYS_futimesat: return {{text(1)}};
#endif
    default: return {};
  }
}

}  // namespace

CallShape shape_of(long number) {
  for (const auto shape_of_kind : {shape_of_data, shape_of_names, shape_of_name}) {
    const CallShape shape = shape_of_kind(number);
    if (shape.pointers[0].to != PointsTo::kNothing) return shape;
  }
  return {};
}

}  // namespace isthmus::preload
