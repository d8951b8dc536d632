// What becomes of open devices in a child after fork().
//
// The child gets copies of the memory and the descriptors, and none of the threads. The contexts
// in it are the parent's: a packet the child took from the socket would be lost to the parent, and
// the daemon would not see the parent end while the child holds its connection. So the child lets
// go of all descriptors at once, and its copies of the contexts refuse to work. It can open its
// own.
//
// Threading: any thread; the data path does not come here.
#pragma once

#include "os/file_identity.h"

namespace isthmus::verbs {

class Context;

void enlist_for_fork(Context& context);
void delist_for_fork(Context& context);

// The open context whose cmd_fd is this file; null if none of this process is.
Context* find_context(const os::FileIdentity& command_file);

}  // namespace isthmus::verbs
