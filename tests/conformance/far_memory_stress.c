// Far memory under stress: threads write and check pages of their own content while pages are
// evicted, signals arrive, children are forked, memory is mapped, unmapped, discarded and resized.
//
// Usage: far_memory_stress MEBIBYTES ROUNDS. Prints "ok" and a sum that depends on nothing but the
// arguments; a page with wrong content is named, and the exit status is 1.
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kThreads = 4, kPage = 4096, kWords = kPage / 8 };

static size_t bytes_of_thread;
static int rounds;
static atomic_ulong sum;
static atomic_int wrong;
static atomic_ulong signals;
static uint64_t* far_counter;  // Touched by the signal handler.

static void on_signal(int number) {
  (void)number;
  atomic_fetch_add(&signals, 1);
  far_counter[atomic_load(&signals) % 64 * kWords] += 1;  // 64 pages: some are away.
}

static uint64_t next(uint64_t* state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

static void fail(const char* what, const void* where, uint64_t found, uint64_t expected) {
  fprintf(stderr, "%s at %p: %#lx, not %#lx\n", what, where, (unsigned long)found,
          (unsigned long)expected);
  atomic_store(&wrong, 1);
}

static void fill(uint64_t* page, uint64_t tag) {
  for (int word = 0; word < kWords; ++word) page[word] = tag * 0x9e3779b97f4a7c15u + word;
}

static void check(const uint64_t* page, uint64_t tag) {
  for (int word = 0; word < kWords; ++word) {
    const uint64_t expected = tag == 0 ? 0 : tag * 0x9e3779b97f4a7c15u + word;
    if (page[word] != expected) {
      fail("page", page + word, page[word], expected);
      return;
    }
  }
}

// Random pages are written and checked; every few rounds some are discarded.
static void touch_pages(uint64_t* memory, uint64_t* tags, size_t pages, uint64_t* random) {
  for (size_t step = 0; step < pages && !atomic_load(&wrong); ++step) {
    const size_t page = next(random) % pages;
    uint64_t* at = memory + page * kWords;
    check(at, tags[page]);
    switch (next(random) % 8) {
      case 0: break;  // Stays clean.
      case 1:
        if (madvise(at, kPage, MADV_DONTNEED) != 0) fail("madvise", at, 1, 0);
        tags[page] = 0;
        break;
      default:
        tags[page] = next(random) | 1;
        fill(at, tags[page]);
    }
  }
}

// A mapping grows and moves; what it held must still be there.
static void resize_mapping(uint64_t tag) {
  const size_t small = 128 << 10, large = 1 << 20;
  uint64_t* map = mmap(NULL, small, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (map == MAP_FAILED) return fail("mmap", map, 1, 0);
  for (size_t page = 0; page < small / kPage; ++page) fill(map + page * kWords, tag + page);
  uint64_t* grown = mremap(map, small, large, MREMAP_MAYMOVE);
  if (grown == MAP_FAILED) return fail("mremap", map, 1, 0);
  for (size_t page = 0; page < small / kPage; ++page) check(grown + page * kWords, tag + page);
  check(grown + small / 8, 0);
  // A hole in the middle, a page that cannot be read, then all of it goes.
  if (munmap((char*)grown + kPage, kPage) != 0) fail("munmap", grown, 1, 0);
  if (mprotect(grown, kPage, PROT_NONE) != 0) fail("mprotect", grown, 1, 0);
  if (mprotect(grown, kPage, PROT_READ | PROT_WRITE) != 0) fail("mprotect", grown, 1, 0);
  check(grown, tag);
  if (munmap(grown, large) != 0) fail("munmap", grown, 1, 0);
}

// System calls with far memory on both sides.
static void through_a_pipe(uint64_t* page, uint64_t tag) {
  int ends[2];
  if (pipe(ends) != 0) return fail("pipe", page, 1, 0);
  uint64_t* copy = malloc(kPage);
  if (write(ends[1], page, kPage) != kPage) fail("write", page, 1, 0);
  if (read(ends[0], copy, kPage) != kPage) fail("read", copy, 1, 0);
  check(copy, tag);
  free(copy);
  close(ends[0]);
  close(ends[1]);
}

static void* work(void* argument) {
  const uintptr_t number = (uintptr_t)argument;
  const size_t pages = bytes_of_thread / kPage;
  uint64_t random = 88172645463325252u + number;
  uint64_t* memory = aligned_alloc(kPage, bytes_of_thread);
  uint64_t* tags = calloc(pages, sizeof *tags);
  if (memory == NULL || tags == NULL) {
    fail("malloc", memory, 0, 1);
    return NULL;
  }
  memset(memory, 0, bytes_of_thread);
  for (int round = 0; round < rounds && !atomic_load(&wrong); ++round) {
    touch_pages(memory, tags, pages, &random);
    resize_mapping(random | 1);
    const size_t page = next(&random) % pages;
    through_a_pipe(memory + page * kWords, tags[page]);
    uint64_t* resized = realloc(NULL, 100);
    for (size_t size = 100; size < 300000; size *= 3) {
      resized = realloc(resized, size);
      resized[0] = size;
      if (malloc_usable_size(resized) < size) fail("malloc_usable_size", resized, 0, size);
    }
    free(resized);
  }
  for (size_t page = 0; page < pages; ++page) {
    check(memory + page * kWords, tags[page]);
    atomic_fetch_add(&sum, tags[page]);
  }
  free(tags);
  free(memory);
  return NULL;
}

// A child writes what it shares with its parent: the parent must not see it.
static void fork_once(int round) {
  volatile uint64_t mark[kWords];
  mark[0] = (uint64_t)round;
  const pid_t child = fork();
  if (child == 0) {
    uint64_t* fresh = malloc(256 << 10);
    fill(fresh, (uint64_t)round + 1);
    check(fresh, (uint64_t)round + 1);
    mark[0] = ~0u;
    _exit(atomic_load(&wrong));
  }
  int status = 1;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    fail("child", NULL, (uint64_t)status, 0);
  }
  if (mark[0] != (uint64_t)round) fail("parent's page", (void*)mark, mark[0], (uint64_t)round);
}

int main(int count, char** arguments) {
  if (count != 3) return 2;
  bytes_of_thread = (strtoul(arguments[1], NULL, 10) << 20) / kThreads;
  rounds = atoi(arguments[2]);
  far_counter = mmap(NULL, 64 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
  sigaction(SIGALRM, &action, NULL);
  const struct itimerval often = {{0, 5000}, {0, 5000}};
  setitimer(ITIMER_REAL, &often, NULL);

  pthread_t threads[kThreads];
  for (uintptr_t number = 0; number < kThreads; ++number) {
    if (pthread_create(&threads[number], NULL, work, (void*)number) != 0) return 1;
  }
  for (int round = 0; round < rounds && !atomic_load(&wrong); ++round) fork_once(round);
  for (int number = 0; number < kThreads; ++number) pthread_join(threads[number], NULL);
  const struct itimerval never = {{0, 0}, {0, 0}};
  setitimer(ITIMER_REAL, &never, NULL);

  uint64_t handled = 0;
  for (int page = 0; page < 64; ++page) handled += far_counter[page * kWords];
  if (handled != 0 && handled > atomic_load(&signals)) {
    fail("signal counter", far_counter, handled, atomic_load(&signals));
  }
  if (atomic_load(&wrong)) return 1;
  printf("ok %lx\n", atomic_load(&sum));
  return 0;
}
