/* An array larger than the memory it may take here.
 *
 * cc -Iinclude examples/far_sum.c -Lbuild/release/lib -listhmus_far -o far_sum
 * isthmus memory serve --size 1G &
 * isthmus run -- ./far_sum 127.0.0.1
 */
#include <isthmus/far_memory.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  const size_t count = 32u << 20; /* 256 MiB of numbers, 32 MiB of them here. */
  struct isthmus_far_options options;
  memset(&options, 0, sizeof options);
  options.nodes = argc > 1 ? argv[1] : "127.0.0.1";
  options.far_bytes = count * sizeof(uint64_t);
  options.local_bytes = 32u << 20;

  struct isthmus_far *far;
  if (isthmus_far_create(&options, &far) != 0) {
    fprintf(stderr, "far_sum: %s\n", isthmus_far_message());
    return 1;
  }
  uint64_t *numbers = isthmus_far_allocate(far, options.far_bytes);
  if (numbers == NULL) return 1;
  for (size_t index = 0; index < count; ++index) numbers[index] = index;
  uint64_t sum = 0;
  for (size_t index = 0; index < count; ++index) sum += numbers[index];

  struct isthmus_far_stats stats;
  isthmus_far_get_stats(far, &stats);
  printf("sum %llu, %llu pages here, %llu read, %llu written\n", (unsigned long long)sum,
         (unsigned long long)stats.pages_local, (unsigned long long)stats.pages_read,
         (unsigned long long)stats.pages_written);
  isthmus_far_destroy(far);
  return sum == (uint64_t)count * (count - 1) / 2 ? 0 : 1;
}
