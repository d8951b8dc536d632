// The tree of files that stands for the device: made once for each daemon, by the first process
// of a user that looks, in a folder of that user alone; later ones find it there. It shows the
// device as it was then: addresses that a host gets later appear with its next daemon.
//
// Threading: any thread.
#pragma once

#include <string>

namespace isthmus::preload {

// Its folder; empty when no daemon answers, in which case there is no device either.
const std::string& device_tree();

}  // namespace isthmus::preload
