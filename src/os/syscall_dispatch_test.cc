// Goal: a caught program does what it does uncaught: calls, threads, children, signals; and the
// handler sees every call of the program, but none of those made directly.
// Method: each case in a child process, which is caught from there on; the handler counts, and
// passes everything on, as far memory's does.
#include "os/syscall_dispatch.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>

#include "os/bus_error.h"
#include "os/signal_calls.h"

namespace isthmus::os {
namespace {

std::atomic<int> seen{0};  // Calls of getppid.

std::int64_t pass(CaughtCall& call) {
  if (const auto done = do_signal_call(call)) return *done;
  if (call.number == SYS_getppid) ++seen;
  if (call.number == SYS_clone || call.number == SYS_clone3) return direct_clone(call);
  if (call.number == SYS_exit) direct_exit(call);
  MaskCopy copy;
  filter_mask(call, copy);
  return direct_call(call.number, call.arguments);
}

BusVerdict nothing_is_ours(std::uint64_t, BusAccess) { return BusVerdict::kForeign; }

sigjmp_buf back;
void jump_back(int) { siglongjmp(back, 1); }

// Which step of a case failed; 0: none. Cases run where gtest cannot count.
#define STEP(condition) \
  do {                  \
    if (!(condition)) return __LINE__ % 250 + 1; \
  } while (false)

int status_of(int (*work)()) {
  const pid_t child = fork();
  if (child == 0) {
    signal(SIGBUS, SIG_DFL);
    const bool started = catch_bus_errors(nothing_is_ours) && start_catching(pass);
    _exit(started ? work() : 251);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

class SyscallDispatch : public testing::Test {
 protected:
  void SetUp() override {
    if (status_of([] { return 0; }) == 251) {
      GTEST_SKIP() << "this kernel or processor has no Syscall User Dispatch";
    }
  }
};

long call_getppid() { return syscall(SYS_getppid); }

TEST_F(SyscallDispatch, SeesEachCallButDirectOnes) {
  EXPECT_EQ(status_of([] {
    const long parent = direct_call(SYS_getppid, {});
    STEP(seen == 0 && is_caught());
    STEP(call_getppid() == parent && seen == 1);
    {
      const DirectCalls direct;
      STEP(call_getppid() == parent && seen == 1);
      {
        const DirectCalls inner;
        STEP(call_getppid() == parent);
      }
      STEP(call_getppid() == parent && seen == 1);
    }
    STEP(call_getppid() == parent && seen == 2);
    errno = 77;
    STEP(direct_call(SYS_close, {~std::uint64_t{0}}) == -EBADF && errno == 77);
    STEP(close(-1) == -1 && errno == EBADF);
    return 0;
  }), 0);
}

TEST_F(SyscallDispatch, CatchesThreads) {
  EXPECT_EQ(status_of([] {
    for (int round = 0; round < 50; ++round) {
      std::atomic<int> right{0};
      std::thread threads[4];
      for (std::thread& thread : threads) {
        thread = std::thread([&right] {
          const int before = seen;
          call_getppid();
          if (is_caught() && seen > before) ++right;
        });
      }
      for (std::thread& thread : threads) thread.join();
      STEP(right == 4);
    }
    return 0;
  }), 0);
}

TEST_F(SyscallDispatch, CatchesChildrenOfForkWhenToldTo) {
  EXPECT_EQ(status_of([] {
    const pid_t child = fork();
    if (child == 0) {
      const int before = seen;
      call_getppid();
      if (seen != before) _exit(1);
      catch_again_in_child();
      call_getppid();
      if (seen == before) _exit(2);
      // It is a process of its own, with signals of its own.
      struct sigaction asked {};
      signal(SIGBUS, jump_back);
      if (sigaction(SIGBUS, nullptr, &asked) != 0 || asked.sa_handler != jump_back) _exit(3);
      if (sigsetjmp(back, 1) == 0) raise(SIGBUS);
      _exit(sigaction(SIGBUS, nullptr, &asked) == 0 ? 0 : 4);
    }
    int status = 0;
    STEP(waitpid(child, &status, 0) == child && status == 0);
    return 0;
  }), 0);
}

TEST_F(SyscallDispatch, StartsPrograms) {
  EXPECT_EQ(status_of([] {
    for (int round = 0; round < 20; ++round) {
      char name[] = "sh";
      char option[] = "-c";
      char script[] = "exit 9";
      char* const words[] = {name, option, script, nullptr};
      pid_t child = 0;
      STEP(posix_spawnp(&child, "sh", nullptr, nullptr, words, environ) == 0);
      int status = 0;
      STEP(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 9);
      STEP(WEXITSTATUS(system("exit 4")) == 4);
    }
    const int before = seen;
    call_getppid();
    STEP(seen == before + 1);
    return 0;
  }), 0);
}

std::atomic<int> alarms{0};
void on_alarm(int) {
  call_getppid();  // Caught, inside a caught call that waits.
  ++alarms;
}

TEST_F(SyscallDispatch, SignalsInterruptWhatWaits) {
  EXPECT_EQ(status_of([] {
    struct sigaction action {};
    action.sa_handler = on_alarm;
    STEP(sigaction(SIGALRM, &action, nullptr) == 0);
    const itimerval soon{{0, 0}, {0, 20'000}};
    STEP(setitimer(ITIMER_REAL, &soon, nullptr) == 0);
    STEP(poll(nullptr, 0, 10'000) == -1 && errno == EINTR && alarms == 1 && seen == 1);
    // What the program asked for is what it is told.
    struct sigaction asked {};
    STEP(sigaction(SIGALRM, nullptr, &asked) == 0);
    STEP(asked.sa_handler == on_alarm && (asked.sa_flags & SA_ONSTACK) == 0);
    // Blocked, and let through while ppoll() waits.
    sigset_t blocked;
    sigset_t before;
    sigfillset(&blocked);
    STEP(sigprocmask(SIG_SETMASK, &blocked, &before) == 0);
    STEP(setitimer(ITIMER_REAL, &soon, nullptr) == 0);
    STEP(poll(nullptr, 0, 60) == 0 && alarms == 1);
    sigset_t open;
    sigemptyset(&open);
    const timespec patience{10, 0};
    STEP(ppoll(nullptr, 0, &patience, &open) == -1 && errno == EINTR && alarms == 2);
    STEP(sigprocmask(SIG_SETMASK, nullptr, &blocked) == 0 && sigismember(&blocked, SIGALRM) == 1);
    STEP(sigismember(&blocked, SIGBUS) == 0);  // Nobody may block it.
    return 0;
  }), 0);
}

TEST_F(SyscallDispatch, HandlersMayJumpOutOfWhatWaits) {
  EXPECT_EQ(status_of([] {
    struct sigaction action {};
    action.sa_handler = jump_back;
    STEP(sigaction(SIGALRM, &action, nullptr) == 0);
    static int round = 0;
    while (round++ < 20) {
      if (sigsetjmp(back, 1) == 0) {
        const itimerval soon{{0, 0}, {0, 2000}};
        setitimer(ITIMER_REAL, &soon, nullptr);
        poll(nullptr, 0, 10'000);
        return 1;
      }
    }
    const int before = seen;
    call_getppid();
    STEP(seen == before + 1);
    return 0;
  }), 0);
}

TEST_F(SyscallDispatch, ProgramsHaveTheirOwnBusErrors) {
  EXPECT_EQ(status_of([] {
    struct sigaction action {};
    action.sa_handler = jump_back;
    struct sigaction before {};
    STEP(sigaction(SIGBUS, &action, &before) == 0 && before.sa_handler == SIG_DFL);
    if (sigsetjmp(back, 1) == 0) {
      raise(SIGBUS);
      return 1;
    }
    struct sigaction asked {};
    STEP(sigaction(SIGBUS, nullptr, &asked) == 0 && asked.sa_handler == jump_back);
    return 0;
  }), 0);
  EXPECT_EQ(status_of([] {
    raise(SIGBUS);
    return 1;
  }), 1000 + SIGBUS);
}

TEST_F(SyscallDispatch, ProgramsHaveTheirOwnBadSystemCalls) {
  EXPECT_EQ(status_of([] {
    signal(SIGSYS, jump_back);
    if (sigsetjmp(back, 1) == 0) {
      raise(SIGSYS);
      return 1;
    }
    const int before = seen;
    call_getppid();
    STEP(seen == before + 1);
    signal(SIGSYS, SIG_IGN);
    raise(SIGSYS);
    return 0;
  }), 0);
  EXPECT_EQ(status_of([] {
    raise(SIGSYS);
    return 1;
  }), 1000 + SIGSYS);
}

TEST_F(SyscallDispatch, AlternateStacksAreAsAskedFor) {
  EXPECT_EQ(status_of([] {
    stack_t had{};
    STEP(sigaltstack(nullptr, &had) == 0 && had.ss_flags == SS_DISABLE);
    static char memory[64 << 10];
    stack_t mine{};
    mine.ss_sp = memory;
    mine.ss_size = sizeof memory;
    STEP(sigaltstack(&mine, nullptr) == 0);
    STEP(sigaltstack(nullptr, &had) == 0 && had.ss_sp == memory && had.ss_flags == 0);
    mine.ss_size = 100;
    STEP(sigaltstack(&mine, nullptr) == -1 && errno == ENOMEM);
    return 0;
  }), 0);
}

}  // namespace
}  // namespace isthmus::os
