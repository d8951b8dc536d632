#include "verbs/inheritance.h"

#include <pthread.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "verbs/context.h"

namespace isthmus::verbs {
namespace {

// Never destroyed: contexts may outlive the destructors of a program's end.
struct OpenContexts {
  std::mutex lock;
  std::vector<Context*> all;
};

OpenContexts& open_contexts() {
  static OpenContexts& contexts = *new OpenContexts;
  return contexts;
}

// The lock is held across fork(), so that the child finds the list whole.
void before_fork() { open_contexts().lock.lock(); }

void after_fork_in_parent() { open_contexts().lock.unlock(); }

void after_fork_in_child() {
  for (Context* context : open_contexts().all) context->become_inherited();
  open_contexts().lock.unlock();
}

void watch_forks() {
  static const int result =
      pthread_atfork(&before_fork, &after_fork_in_parent, &after_fork_in_child);
  (void)result;  // ENOMEM: forks go unnoticed, which is how it would be without this.
}

}  // namespace

void enlist_for_fork(Context& context) {
  watch_forks();
  const std::scoped_lock guard{open_contexts().lock};
  open_contexts().all.push_back(&context);
}

Context* find_context(const os::FileIdentity& command_file) {
  const std::scoped_lock guard{open_contexts().lock};
  const auto found = std::ranges::find(open_contexts().all, command_file, &Context::command_file);
  return found == open_contexts().all.end() ? nullptr : *found;
}

void delist_for_fork(Context& context) {
  const std::scoped_lock guard{open_contexts().lock};
  std::erase(open_contexts().all, &context);
}

}  // namespace isthmus::verbs
