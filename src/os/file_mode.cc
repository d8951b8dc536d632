#include "os/file_mode.h"

#include <sys/stat.h>

namespace isthmus::os {

PrivateFilesScope::PrivateFilesScope() : previous_(umask(077)) {}
PrivateFilesScope::~PrivateFilesScope() { umask(previous_); }

}  // namespace isthmus::os
