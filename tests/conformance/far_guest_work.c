/* What a guest whose memory is far does with it: fills most of it, reads it in another order,
 * changes half of it, and reads all of it again. Each word is checked; the digest is of all that
 * was read.
 *
 * usage: far_guest_work MIB */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { WORDS = 512 }; /* Of a page. */

static uint64_t *memory;
static uint64_t pages;
static uint64_t digest = 14695981039346656037u;

static uint64_t word_of(uint64_t page, uint64_t index, uint64_t turn) {
  return (page * WORDS + index + 1) * 0x9e3779b97f4a7c15u ^ turn;
}

static void fill(uint64_t page, uint64_t turn) {
  for (uint64_t index = 0; index < WORDS; ++index) {
    memory[page * WORDS + index] = word_of(page, index, turn);
  }
}

static void check(uint64_t page, uint64_t turn) {
  for (uint64_t index = 0; index < WORDS; ++index) {
    const uint64_t found = memory[page * WORDS + index];
    if (found != word_of(page, index, turn)) {
      printf("work: page %llu, word %llu: %llx\n", (unsigned long long)page,
             (unsigned long long)index, (unsigned long long)found);
      exit(1);
    }
    digest = (digest ^ found) * 1099511628211u;
  }
}

int main(int argc, char **argv) {
  pages = (argc == 2 ? strtoull(argv[1], NULL, 10) : 0) * 256;
  memory = malloc(pages * WORDS * sizeof *memory);
  if (pages == 0 || memory == NULL) {
    printf("work: no memory\n");
    return 1;
  }
  for (uint64_t page = 0; page < pages; ++page) fill(page, 0);
  for (uint64_t step = 0; step < pages; ++step) {
    const uint64_t page = step * 7919 % pages; /* Each once: 7919 is prime. */
    check(page, 0);
    if (step % 2 == 0) fill(page, 1);
  }
  uint64_t changed = 0;
  for (uint64_t page = 0; page < pages; ++page) {
    const uint64_t turn = memory[page * WORDS] == word_of(page, 0, 1);
    changed += turn;
    check(page, turn);
  }
  printf("work: %llu pages, %llu changed, digest %016llx\n", (unsigned long long)pages,
         (unsigned long long)changed, (unsigned long long)digest);
  return 0;
}
