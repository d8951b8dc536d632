#include "os/syscall_dispatch.h"

#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>

#include "os/signal_follower.h"

#if defined(__x86_64__)

// Older headers lack them.
#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#define PR_SYS_DISPATCH_ON 1
#endif

namespace isthmus::os {
namespace {

constexpr std::uint8_t kAllow = 0;  // As the kernel reads the selector.
constexpr std::uint8_t kCatch = 1;
constexpr int kUserDispatch = 2;    // SIGSYS's si_code.

// Room for the frames of handlers of the program's, which nest above ours.
constexpr std::uint64_t kAltStackBytes = 256u << 10;

thread_local constinit volatile std::uint8_t selector [[gnu::tls_model("initial-exec")]] = kAllow;
thread_local constinit bool caught [[gnu::tls_model("initial-exec")]] = false;
thread_local constinit std::uint64_t alt_stack [[gnu::tls_model("initial-exec")]] = 0;

constinit CallHandler the_handler = nullptr;
constinit std::int64_t the_process = 0;  // Whose calls are caught.

// What a new thread needs to go on where the call was made, on its own stack, under which this
// lies. Offsets are the assembler's too.
struct alignas(16) CloneBlock {
  std::uint64_t rbx, rbp, rdi, rsi, rdx, r8, r9, r10;  // From 0.
  std::uint64_t r12, r13, r14, r15, rip, rsp;          // From 64.
  std::uint64_t flags;
  std::uint64_t alt_stack;
};
static_assert(offsetof(CloneBlock, r12) == 64 && offsetof(CloneBlock, rsp) == 104);

}  // namespace
}  // namespace isthmus::os

extern "C" {
[[gnu::visibility("hidden")]] extern const char isthmus_direct_begin[];
[[gnu::visibility("hidden")]] extern const char isthmus_direct_end[];
[[gnu::visibility("hidden")]] extern const char isthmus_direct_restorer[];
[[gnu::visibility("hidden")]] std::int64_t isthmus_direct_call(long number,
                                                               const std::uint64_t* arguments);
[[gnu::visibility("hidden")]] std::int64_t isthmus_direct_clone(long number,
                                                                const std::uint64_t* arguments);
[[noreturn, gnu::visibility("hidden")]] void isthmus_direct_sigreturn(std::uint64_t frame);
[[noreturn, gnu::visibility("hidden")]] void isthmus_direct_exit(std::uint64_t stack,
                                                                 std::uint64_t bytes,
                                                                 std::uint64_t status);
// Called by the assembler, in the new thread.
[[gnu::visibility("hidden"), gnu::used]] void isthmus_enter_cloned(
    const isthmus::os::CloneBlock* block);
}

// The range that is not caught. The restorer is recognised by unwinders by its very bytes.
asm(R"(
.pushsection .text.isthmus_direct, "ax", @progbits
.balign 64
.globl isthmus_direct_begin
.hidden isthmus_direct_begin
isthmus_direct_begin:

.macro ISTHMUS_LOAD_CALL
  mov %rdi, %rax
  mov %rsi, %r11
  mov 0(%r11), %rdi
  mov 8(%r11), %rsi
  mov 16(%r11), %rdx
  mov 24(%r11), %r10
  mov 32(%r11), %r8
  mov 40(%r11), %r9
.endm

.globl isthmus_direct_call
.hidden isthmus_direct_call
.type isthmus_direct_call, @function
isthmus_direct_call:
  .cfi_startproc
  ISTHMUS_LOAD_CALL
  syscall
  ret
  .cfi_endproc
.size isthmus_direct_call, . - isthmus_direct_call

.globl isthmus_direct_clone
.hidden isthmus_direct_clone
.type isthmus_direct_clone, @function
isthmus_direct_clone:
  .cfi_startproc
  ISTHMUS_LOAD_CALL
  syscall
  test %rax, %rax
  jz 1f
  ret
1:
  .cfi_undefined rip
  mov %rsp, %rdi
  call isthmus_enter_cloned
  mov %rsp, %rcx
  mov 0(%rcx), %rbx
  mov 8(%rcx), %rbp
  mov 16(%rcx), %rdi
  mov 24(%rcx), %rsi
  mov 32(%rcx), %rdx
  mov 40(%rcx), %r8
  mov 48(%rcx), %r9
  mov 56(%rcx), %r10
  mov 64(%rcx), %r12
  mov 72(%rcx), %r13
  mov 80(%rcx), %r14
  mov 88(%rcx), %r15
  mov 104(%rcx), %rsp
  mov 96(%rcx), %rcx
  xor %eax, %eax
  jmp *%rcx
  .cfi_endproc
.size isthmus_direct_clone, . - isthmus_direct_clone

.globl isthmus_direct_exit
.hidden isthmus_direct_exit
.type isthmus_direct_exit, @function
isthmus_direct_exit:
  mov %rdx, %r12
  mov $11, %eax   # munmap, of the stack that we are on
  syscall
  mov %r12, %rdi
  mov $60, %eax   # exit
  syscall
  hlt
.size isthmus_direct_exit, . - isthmus_direct_exit

.globl isthmus_direct_sigreturn
.hidden isthmus_direct_sigreturn
.type isthmus_direct_sigreturn, @function
isthmus_direct_sigreturn:
  mov %rdi, %rsp
  nop
.globl isthmus_direct_restorer
.hidden isthmus_direct_restorer
isthmus_direct_restorer:
  mov $15, %rax   # rt_sigreturn
  syscall
.size isthmus_direct_sigreturn, . - isthmus_direct_sigreturn

  nop  # The kernel looks at the address after the instruction.

.globl isthmus_direct_end
.hidden isthmus_direct_end
isthmus_direct_end:
.popsection
)");

namespace isthmus::os {
namespace {

std::uint64_t number_of(const volatile void* pointer) {
  return reinterpret_cast<std::uint64_t>(pointer);
}

std::uint64_t map_alt_stack() {
  const std::int64_t mapped =
      direct_call(SYS_mmap, {0, kAltStackBytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK,
                             ~std::uint64_t{0}, 0});
  return mapped < 0 ? 0 : static_cast<std::uint64_t>(mapped);
}

void unmap_alt_stack(std::uint64_t stack) {
  if (stack != 0) direct_call(SYS_munmap, {stack, kAltStackBytes});
}

// Of the calling thread.
std::int64_t use_alt_stack(std::uint64_t stack) {
  stack_t kernel{};
  kernel.ss_sp = reinterpret_cast<void*>(stack);
  kernel.ss_size = kAltStackBytes;
  return direct_call(SYS_sigaltstack, {number_of(&kernel)});
}

std::int64_t catch_this_thread() {
  const std::int64_t result = direct_call(
      SYS_prctl, {PR_SET_SYSCALL_USER_DISPATCH, PR_SYS_DISPATCH_ON, number_of(isthmus_direct_begin),
                  number_of(isthmus_direct_end) - number_of(isthmus_direct_begin),
                  number_of(&selector)});
  if (result == 0) {
    caught = true;
    selector = kCatch;
  }
  return result;
}

void on_caught(int, siginfo_t* info, void* machine) {
  auto* context = static_cast<ucontext_t*>(machine);
  greg_t* registers = context->uc_mcontext.gregs;
  const int kept = errno;
  if (info->si_code != kUserDispatch) {
    pass_to_follower(SIGSYS, info, machine);
    errno = kept;
    return;
  }
  const auto argument = [registers](int index) {
    return static_cast<std::uint64_t>(registers[index]);
  };
  CaughtCall call{info->si_syscall,
                  {argument(REG_RDI), argument(REG_RSI), argument(REG_RDX), argument(REG_R10),
                   argument(REG_R8), argument(REG_R9)},
                  context};
  registers[REG_RAX] = the_handler(call);
  errno = kept;
}

std::int64_t change_action(int signal_number, const KernelAction* to, KernelAction* from) {
  return direct_call(SYS_rt_sigaction, {static_cast<std::uint64_t>(signal_number), number_of(to),
                                        number_of(from), sizeof(std::uint64_t)});
}

constexpr std::uint64_t kRestorerFlag = 0x04000000;  // SA_RESTORER

// Handlers that are there already return without being caught: they may have blocked SIGSYS.
void return_directly() {
  for (int number = 1; number <= kSignals; ++number) {
    KernelAction action{};
    const bool handled = change_action(number, nullptr, &action) == 0 && action.handler > 1;
    if (!handled || number == SIGSYS) continue;
    action.flags |= kRestorerFlag | SA_ONSTACK;
    action.restorer = number_of(isthmus_direct_restorer);
    change_action(number, &action, nullptr);
  }
}

}  // namespace

Result<void> start_catching(CallHandler handler) {
  the_handler = handler;
  the_process = direct_call(SYS_getpid, {});
  struct sigaction before {};
  if (sigaction(SIGSYS, nullptr, &before) != 0) return fail_errno(errno, "look at SIGSYS");
  set_follower(SIGSYS, before);
  const KernelAction action{
      number_of(reinterpret_cast<const void*>(on_caught)),
      SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART | kRestorerFlag,
      number_of(isthmus_direct_restorer), 0};
  if (const auto result = change_action(SIGSYS, &action, nullptr); result < 0) {
    return fail_errno(static_cast<int>(-result), "catch SIGSYS");
  }
  alt_stack = map_alt_stack();
  if (alt_stack == 0) return fail_errno(ENOMEM, "map a stack for signals");
  use_alt_stack(alt_stack);
  return_directly();
  if (catch_this_thread() < 0) {
    return fail(ErrorCode::kUnsupported,
                "this kernel cannot show us the program's system calls (Syscall User Dispatch, "
                "Linux 5.11)");
  }
  return {};
}

void catch_again_in_child() {
  // The selector stays what it is: the caller may be in a DirectCalls.
  const std::uint8_t before = selector;
  the_process = direct_call(SYS_getpid, {});
  catch_this_thread();
  selector = before;
}

bool is_caught() { return caught; }

bool borrows_memory() { return direct_call(SYS_getpid, {}) != the_process; }

std::int64_t direct_call(long number, const CallArguments& arguments) {
  return isthmus_direct_call(number, arguments.data());
}

std::int64_t direct_clone(const CaughtCall& call) {
  // clone3's argument, as far as it concerns us.
  struct Clone3 {
    std::uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_bytes, tls;
    std::uint64_t later[8];
  };
  CallArguments arguments = call.arguments;
  Clone3 three{};
  std::uint64_t flags = arguments[0];
  std::uint64_t top = arguments[1];
  if (call.number == SYS_clone3) {
    if (arguments[1] > sizeof three) return -E2BIG;
    std::memcpy(&three, reinterpret_cast<const void*>(arguments[0]), arguments[1]);
    flags = three.flags;
    top = three.stack == 0 ? 0 : three.stack + three.stack_bytes;
    arguments[0] = number_of(&three);
  }
  if ((flags & CLONE_VM) == 0) return direct_call(call.number, arguments);
  // It would go on on our stack.
  if (top == 0) return -ENOSYS;

  const greg_t* registers = call.context->uc_mcontext.gregs;
  const auto saved = [registers](int index) {
    return static_cast<std::uint64_t>(registers[index]);
  };
  auto* block = reinterpret_cast<CloneBlock*>((top - sizeof(CloneBlock)) & ~std::uint64_t{15});
  *block = {.rbx = saved(REG_RBX), .rbp = saved(REG_RBP), .rdi = saved(REG_RDI),
            .rsi = saved(REG_RSI), .rdx = saved(REG_RDX), .r8 = saved(REG_R8),
            .r9 = saved(REG_R9),   .r10 = saved(REG_R10), .r12 = saved(REG_R12),
            .r13 = saved(REG_R13), .r14 = saved(REG_R14), .r15 = saved(REG_R15),
            .rip = saved(REG_RIP), .rsp = top,            .flags = flags,
            .alt_stack = map_alt_stack()};
  const std::uint64_t stack = block->alt_stack;
  if (stack == 0) return -EAGAIN;
  if (call.number == SYS_clone3) {
    three.stack_bytes = number_of(block) - three.stack;
  } else {
    arguments[1] = number_of(block);
  }
  const std::int64_t result = isthmus_direct_clone(call.number, arguments.data());
  // A child by vfork() has come to its end, or to a program of its own.
  if (result < 0 || (flags & CLONE_VFORK) != 0) unmap_alt_stack(stack);
  return result;
}

void direct_exit(const CaughtCall& call) {
  const char here = 0;
  const bool on_it = number_of(&here) - alt_stack < kAltStackBytes;
  if (on_it) isthmus_direct_exit(alt_stack, kAltStackBytes, call.arguments[0]);
  for (;;) direct_call(SYS_exit, call.arguments);
}

void direct_sigreturn(const CaughtCall& call) {
  isthmus_direct_sigreturn(static_cast<std::uint64_t>(call.context->uc_mcontext.gregs[REG_RSP]));
}

DirectCalls::DirectCalls() : selector_before_(selector) {
  if (!caught) return;
  const std::uint64_t all = ~kNeverBlocked;
  direct_call(SYS_rt_sigprocmask, {SIG_SETMASK, number_of(&all), number_of(&signals_before_),
                                   sizeof all});
  selector = kAllow;
}

DirectCalls::~DirectCalls() {
  if (!caught) return;
  selector = selector_before_;
  direct_call(SYS_rt_sigprocmask, {SIG_SETMASK, number_of(&signals_before_), 0,
                                   sizeof signals_before_});
}

std::uint8_t enter_direct_calls() {
  const std::uint8_t before = selector;
  selector = kAllow;
  return before;
}

void leave_direct_calls(std::uint8_t before) { selector = before; }

}  // namespace isthmus::os

void isthmus_enter_cloned(const isthmus::os::CloneBlock* block) {
  using namespace isthmus::os;
  const bool own_tls = (block->flags & CLONE_SETTLS) != 0;
  // One that runs beside its parent with the same variables could not have a selector of its own.
  if (!own_tls && (block->flags & CLONE_VFORK) == 0) return;
  if (own_tls) alt_stack = block->alt_stack;
  use_alt_stack(block->alt_stack);
  catch_this_thread();
}

#else

namespace isthmus::os {

Result<void> start_catching(CallHandler) {
  return fail(ErrorCode::kUnsupported,
              "system calls can be caught on x86-64 only (Syscall User Dispatch)");
}
void catch_again_in_child() {}
bool is_caught() { return false; }
bool borrows_memory() { return false; }

std::int64_t direct_call(long number, const CallArguments& a) {
  const int kept = errno;
  const long result = syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
  const int error = errno;
  errno = kept;
  return result < 0 ? -error : result;
}

std::int64_t direct_clone(const CaughtCall&) { return -ENOSYS; }
void direct_exit(const CaughtCall& call) {
  for (;;) direct_call(SYS_exit, call.arguments);
}
void direct_sigreturn(const CaughtCall&) { __builtin_trap(); }

DirectCalls::DirectCalls() : selector_before_(0) {}
DirectCalls::~DirectCalls() = default;
std::uint8_t enter_direct_calls() { return 0; }
void leave_direct_calls(std::uint8_t) {}

}  // namespace isthmus::os

#endif
