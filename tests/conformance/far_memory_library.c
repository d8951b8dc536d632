// A program that asks for far memory itself, and forks: parent, child and grandchild write the same
// pages and find what each of them wrote.
//
//     far_memory_library NODES MIB LOCAL_MIB signal|messages
#include <isthmus/far_memory.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { kWords = 4096 / 8 };
static uint64_t *memory;
static size_t pages;

static void put(uint64_t salt, size_t step) {
  for (size_t page = 0; page < pages; page += step) {
    memory[page * kWords + page % kWords] = salt + page;
  }
}

static int wrong(uint64_t salt, size_t step, uint64_t others) {
  for (size_t page = 0; page < pages; ++page) {
    const uint64_t wanted = (page % step == 0 ? salt : others) + page;
    if (memory[page * kWords + page % kWords] != wanted) return 1;
  }
  return 0;
}

static int ends_well(pid_t child) {
  int status = 1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

static int child(void) {
  if (wrong(1000, 1, 0)) return 3;
  put(2000, 2);
  const pid_t grandchild = fork();
  if (grandchild == 0) {
    if (wrong(2000, 2, 1000)) _exit(4);
    put(3000, 3);
    for (size_t page = 0; page < pages; page += 3) {
      if (memory[page * kWords + page % kWords] != 3000 + page) _exit(5);
    }
    _exit(0);
  }
  const int right = ends_well(grandchild) && !wrong(2000, 2, 1000);
  return right ? 0 : 6;
}

int main(int count, char **arguments) {
  if (count != 5) return 2;
  struct isthmus_far_options options;
  memset(&options, 0, sizeof options);
  options.nodes = arguments[1];
  options.far_bytes = strtoull(arguments[2], NULL, 10) << 20;
  options.local_bytes = strtoull(arguments[3], NULL, 10) << 20;
  options.flags = strcmp(arguments[4], "messages") == 0 ? ISTHMUS_FAR_MESSAGES : 0;
  struct isthmus_far *far;
  if (isthmus_far_create(&options, &far) != 0) {
    fprintf(stderr, "%s\n", isthmus_far_message());
    return 1;
  }
  const size_t bytes = options.far_bytes / 4;  // The rest is for what differs.
  memory = isthmus_far_allocate(far, bytes);
  if (memory == NULL) return 1;
  pages = bytes / 4096;
  put(1000, 1);
  const pid_t first = fork();
  if (first == 0) _exit(child());
  put(4000, 5);
  if (!ends_well(first) || wrong(4000, 5, 1000)) return 7;
  isthmus_far_destroy(far);
  puts("right");
  return 0;
}
