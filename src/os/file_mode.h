// Files and sockets that only their owner may open.
#pragma once

namespace isthmus::os {

// While it lives, whatever this process creates is for its owner alone (umask 077). For places
// where a library makes the file; the mask belongs to the process, so no other thread should be
// creating files meanwhile.
class PrivateFilesScope {
 public:
  PrivateFilesScope();
  ~PrivateFilesScope();
  PrivateFilesScope(const PrivateFilesScope&) = delete;
  PrivateFilesScope& operator=(const PrivateFilesScope&) = delete;

 private:
  unsigned previous_;
};

}  // namespace isthmus::os
