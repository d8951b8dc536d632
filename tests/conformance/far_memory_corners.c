/* Places where far memory meets the kernel: stacks in it, five hundred threads, direct I/O into it,
 * locked pages, another's SIGBUS, pages given back, read-only, or reserved first. Prints a line for
 * each; the same natively.
 *
 * usage: far_memory_corners FILE (to write, and to read with O_DIRECT) */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PAGE = 4096, ARRAY_PAGES = 8192, THREADS = 500 };

static uint64_t *array; /* 32 MiB: more than is local. */

static void must(int right, const char *what) {
  if (right) return;
  printf("%s: %s\n", what, strerror(errno));
  exit(1);
}

static void fill_array(void) {
  for (size_t page = 0; page < ARRAY_PAGES; ++page) array[page * 512 + page % 512] = page * 7 + 1;
}

static void check_array(const char *when) {
  for (size_t page = 0; page < ARRAY_PAGES; ++page) {
    if (array[page * 512 + page % 512] == page * 7 + 1) continue;
    printf("%s: page %zu is wrong\n", when, page);
    exit(1);
  }
}

static uint64_t recurse(unsigned depth) {
  volatile char here[2048];
  memset((char *)here, (int)depth, sizeof here);
  uint64_t below = 0;
  if (depth > 0) {
    below = recurse(depth - 1);
    const size_t page = depth * 37 % ARRAY_PAGES;
    array[page * 512 + (page % 512 ^ 1)] = depth; /* Evicts some of the stack, too. */
  }
  for (size_t index = 0; index < sizeof here; index += 512) below += (unsigned char)here[index];
  return below;
}

static void *on_far_stack(void *argument) {
  uint64_t *sum = argument;
  for (int round = 0; round < 20; ++round) {
    *sum += recurse(400);
    check_array("far stack");
  }
  return NULL;
}

static void far_stack(void) {
  const size_t bytes = 2 << 20;
  void *stack = NULL;
  must(posix_memalign(&stack, PAGE, bytes) == 0, "a stack");
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, stack, bytes);
  pthread_t thread;
  uint64_t sum = 0;
  must(pthread_create(&thread, &attributes, on_far_stack, &sum) == 0, "a thread on a far stack");
  pthread_join(thread, NULL);
  free(stack);
  printf("far stack: %llu\n", (unsigned long long)sum);
}

static void *touch_own_pages(void *argument) {
  const size_t self = (size_t)argument;
  uint64_t sum = 0;
  for (size_t page = self; page < ARRAY_PAGES; page += THREADS) {
    sum += array[page * 512 + page % 512];
    array[page * 512 + (page + 1) % 512] = self;
  }
  return (void *)(uintptr_t)sum;
}

static void many_threads(void) {
  static pthread_t threads[THREADS];
  uint64_t sum = 0;
  for (size_t index = 0; index < THREADS; ++index) {
    must(pthread_create(&threads[index], NULL, touch_own_pages, (void *)index) == 0, "a thread");
  }
  for (size_t index = 0; index < THREADS; ++index) {
    void *found;
    pthread_join(threads[index], &found);
    sum += (uintptr_t)found;
  }
  check_array("threads");
  printf("%d threads: %llu\n", THREADS, (unsigned long long)sum);
}

static void direct_reads(const char *path) {
  enum { BYTES = 4 << 20 };
  unsigned char *buffer;
  must(posix_memalign((void **)&buffer, PAGE, BYTES) == 0, "a buffer");
  for (size_t index = 0; index < BYTES; ++index) buffer[index] = (unsigned char)(index / 777);
  int file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  check_array("before writing"); /* The buffer is far now. */
  must(file >= 0 && write(file, buffer, BYTES) == BYTES && fsync(file) == 0, "write");
  close(file);
  memset(buffer, 0, BYTES);
  check_array("before reading");
  file = open(path, O_RDONLY | O_DIRECT);
  if (file < 0) file = open(path, O_RDONLY); /* Not every file system has it. */
  struct iovec pieces[2] = {{buffer, BYTES / 2}, {buffer + BYTES / 2, BYTES / 2}};
  must(readv(file, pieces, 2) == BYTES, "readv");
  close(file);
  for (size_t index = 0; index < BYTES; ++index) {
    must(buffer[index] == (unsigned char)(index / 777), "what was read");
  }
  free(buffer);
  printf("direct reads: right\n");
}

static void locked_pages(void) {
  char *locked = (char *)array + 100 * PAGE;
  const int result = mlock(locked, 64 * PAGE);
  check_array("locked");
  munlock(locked, 64 * PAGE);
  printf("mlock: %d\n", result);
}

static sigjmp_buf back;
static void on_bus_error(int number) { siglongjmp(back, number); }

static void own_bus_error(const char *path) {
  signal(SIGBUS, on_bus_error);
  const int file = open(path, O_RDWR);
  volatile char *past_the_end =
      mmap(NULL, 16 << 20, PROT_READ, MAP_SHARED, file, 0); /* The file has 4 MiB. */
  if (sigsetjmp(back, 1) == 0) {
    printf("read %d\n", past_the_end[8 << 20]);
  } else {
    printf("own SIGBUS: caught\n");
  }
  signal(SIGBUS, SIG_DFL);
  close(file);
}

static void pages_given_back(void) {
  uint64_t *some = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (size_t index = 0; index < (8 << 20) / 8; index += 512) some[index] = index + 1;
  check_array("before giving back");
  madvise(some, 4 << 20, MADV_DONTNEED);
  uint64_t zeros = 0, kept = 0;
  for (size_t index = 0; index < (8 << 20) / 8; index += 512) {
    if (index < (4 << 20) / 8) {
      zeros += some[index] == 0;
    } else {
      kept += some[index] == index + 1;
    }
  }
  munmap(some, 8 << 20);
  printf("given back: %llu zeros, %llu kept\n", (unsigned long long)zeros,
         (unsigned long long)kept);
}

/* Data that is made read-only, or code, while it is here: more of it than may stay. */
static void other_rights(int protection, const char *what) {
  enum { BYTES = 24 << 20 };
  uint64_t *some = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  for (size_t index = 0; index < BYTES / 8; ++index) some[index] = index * 3;
  must(mprotect(some, BYTES, protection) == 0, what);
  check_array(what);
  uint64_t right = 0;
  for (size_t index = 0; index < BYTES / 8; ++index) right += some[index] == index * 3;
  munmap(some, BYTES);
  printf("%s: %llu words\n", what, (unsigned long long)right);
}

/* Address space first, memory at fixed places in it later. */
static void reserved(void) {
  enum { ALL = 80 << 20, SOME = 24 << 20, MORE = 4 << 20 };
  char *all = mmap(NULL, ALL, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  must(all != MAP_FAILED, "reserve");
  char *start = all + (2 << 20);
  must(mmap(start, SOME, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
           start, "map at a fixed place");
  must(mprotect(start + SOME, MORE, PROT_READ | PROT_WRITE) == 0, "grow");
  munmap(all, 2 << 20);
  for (size_t page = 0; page < (SOME + MORE) / PAGE; ++page) {
    memset(start + page * PAGE, (int)(page % 251), PAGE);
  }
  check_array("reserved");
  size_t right = 0;
  for (size_t page = 0; page < (SOME + MORE) / PAGE; ++page) {
    right += start[page * PAGE + page % PAGE] == (char)(page % 251);
  }
  must(mmap(start, SOME, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == start &&
           mprotect(start, SOME, PROT_READ) == 0, "begin anew");
  size_t zeros = 0;
  for (size_t page = 0; page < SOME / PAGE; ++page) zeros += start[page * PAGE] == 0;
  munmap(start, ALL - (2 << 20));
  printf("reserved: %zu right, %zu zeros\n", right, zeros);
}

/* A datagram in a hundred pieces, each in a far page of its own: it arrives whole or not at all. */
static void datagram_in_pieces(void) {
  enum { PIECES = 100, BYTES = 300 };
  int ends[2];
  must(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0, "socketpair");
  char *from = malloc(2 * PIECES * PAGE), *to = malloc(2 * PIECES * PAGE);
  struct iovec out[PIECES], in[PIECES];
  for (int piece = 0; piece < PIECES; ++piece) {
    out[piece] = (struct iovec){from + 2 * piece * PAGE + 7, BYTES};
    in[piece] = (struct iovec){to + 2 * piece * PAGE + 11, BYTES};
    memset(out[piece].iov_base, piece + 1, BYTES);
  }
  check_array("before a datagram"); /* The pieces are far now. */
  struct msghdr sent = {.msg_iov = out, .msg_iovlen = PIECES};
  must(sendmsg(ends[0], &sent, 0) == PIECES * BYTES, "sendmsg");
  check_array("before its arrival");
  struct msghdr got = {.msg_iov = in, .msg_iovlen = PIECES};
  must(recvmsg(ends[1], &got, 0) == PIECES * BYTES && (got.msg_flags & MSG_TRUNC) == 0, "recvmsg");
  for (int piece = 0; piece < PIECES; ++piece) {
    must(memcmp(in[piece].iov_base, out[piece].iov_base, BYTES) == 0, "a piece");
  }
  close(ends[0]);
  close(ends[1]);
  free(from);
  free(to);
  printf("datagram: whole\n");
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  array = malloc((size_t)ARRAY_PAGES * PAGE);
  memset(array, 0, (size_t)ARRAY_PAGES * PAGE);
  fill_array();
  far_stack();
  many_threads();
  direct_reads(argv[1]);
  locked_pages();
  datagram_in_pieces();
  own_bus_error(argv[1]);
  pages_given_back();
  other_rights(PROT_READ, "read-only");
  other_rights(PROT_READ | PROT_WRITE | PROT_EXEC, "executable");
  reserved();
  check_array("at the end");
  printf("all pages right\n");
  return 0;
}
