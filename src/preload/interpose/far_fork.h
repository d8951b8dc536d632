// fork() of a program whose memory is far.
//
// Threading: the thread that forks, in this order.
#pragma once

namespace isthmus::preload {

// Handlers of the libraries that the runtime uses run with ours, whenever they were registered: a
// child can join the store only after theirs. False: there is no room for more.
struct ForkHandlers {
  void (*prepare)() = nullptr;
  void (*parent)() = nullptr;
  void (*child)() = nullptr;
};
bool add_fork_handlers(const ForkHandlers& handlers);

void before_fork();
void after_fork_in_parent();
void after_fork_in_child();

}  // namespace isthmus::preload
