// Far memory for programs that ask for it: a region of address space whose pages are on memory
// nodes (`isthmus memory serve`) except for those that are used most. Link with -listhmus_far.
//
// Memory from here is used like any other. By default a page that is not here is fetched in the
// thread that touches it, in a SIGBUS handler; then system calls given such a page fail with
// EFAULT, and isthmus_far_pin() is the way to give them some. With ISTHMUS_FAR_MESSAGES a thread
// serves the faults, also those of system calls; that needs root or /dev/userfaultfd.
//
// All functions may be called from any thread, not from signal handlers. Those that return int
// return 0, or an errno value; isthmus_far_message() then says in this thread what went wrong.
// When a page is lost, because no node that has it can be reached, the process ends with a message.
//
// A child of fork() has copies of all regions, as of all memory, with the same local_bytes again.
// What differs between the two needs room in far_bytes: if there is none, the process that writes
// ends with a message.
#pragma once

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct isthmus_far;

enum isthmus_far_flags {
  ISTHMUS_FAR_MESSAGES = 1, /* Faults are served by a thread. */
  ISTHMUS_FAR_ENCRYPT = 2   /* Nodes see ciphertext only. */
};

enum isthmus_far_prefetch {
  ISTHMUS_FAR_PREFETCH_ADAPTIVE = 0,
  ISTHMUS_FAR_PREFETCH_NONE = 1,
  ISTHMUS_FAR_PREFETCH_NEXT = 2
};

struct isthmus_far_options {
  const char *nodes;     /* "HOST[:PORT],HOST[:PORT]..." */
  uint64_t far_bytes;    /* Size of the region; reserved on the nodes at once. */
  uint64_t local_bytes;  /* Of it, as much as may be here; at least 4 MiB. */
  unsigned replicas;     /* 1 or 2: nodes that have each page; 0 means 1. */
  unsigned flags;        /* Of isthmus_far_flags. */
  unsigned prefetch;     /* One of isthmus_far_prefetch. */
};

enum isthmus_far_advice {
  ISTHMUS_FAR_WILL_NEED = 0, /* Start to fetch, as far as there is room. */
  ISTHMUS_FAR_DONT_NEED = 1  /* The contents are gone: zeros at the next touch. Whole pages. */
};

/* Counted since isthmus_far_create(); pages of 4096 bytes. */
struct isthmus_far_stats {
  uint64_t pages_local; /* Now. */
  uint64_t pages_remote;
  uint64_t faults;
  uint64_t faults_remote; /* Of these: waited for a node. */
  uint64_t pages_read;
  uint64_t pages_written;
  uint64_t pages_prefetched;
};

int isthmus_far_create(const struct isthmus_far_options *options, struct isthmus_far **far);
/* All memory of the region is gone; no thread may touch it any more. */
void isthmus_far_destroy(struct isthmus_far *far);

/* Zeroed, whole pages; NULL and errno ENOMEM when the region has no room of this size. */
void *isthmus_far_allocate(struct isthmus_far *far, size_t bytes);
/* What isthmus_far_allocate() gave for as many bytes. */
void isthmus_far_free(struct isthmus_far *far, void *memory, size_t bytes);

int isthmus_far_advise(struct isthmus_far *far, void *memory, size_t bytes,
                       enum isthmus_far_advice advice);
/* The pages that these bytes touch are here, writable, until as many calls of isthmus_far_unpin().
 * ENOMEM: too little of local_bytes would be left. */
int isthmus_far_pin(struct isthmus_far *far, void *memory, size_t bytes);
void isthmus_far_unpin(struct isthmus_far *far, void *memory, size_t bytes);

void isthmus_far_get_stats(struct isthmus_far *far, struct isthmus_far_stats *stats);

const char *isthmus_far_message(void);

#ifdef __cplusplus
}
#endif
