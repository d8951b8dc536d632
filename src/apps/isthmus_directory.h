// Which directory a command means, and opening it.
#pragma once

#include <memory>
#include <string>

#include "base/result.h"
#include "cluster/directory/directory.h"

namespace isthmus::apps {

// ISTHMUS_DIRECTORY, or a file: /var/lib/isthmus/directory.db of root, and
// isthmus/directory.db in XDG_STATE_HOME (~/.local/state) of another user.
std::string default_directory();

// "etcd://HOST:PORT[,HOST:PORT...]" or the file of a SQLite directory, which is made if it is not
// there; empty: default_directory().
Result<std::unique_ptr<cluster::Directory>> open_directory(const std::string& place);

}  // namespace isthmus::apps
