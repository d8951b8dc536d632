// fork() of a program whose memory is far.
//
// Threading: the thread that forks, in this order.
#pragma once

namespace isthmus::preload {

void before_fork();
void after_fork_in_parent();
void after_fork_in_child();

}  // namespace isthmus::preload
