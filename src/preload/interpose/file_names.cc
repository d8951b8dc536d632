// The functions of libc that take a file name, in front of libc's own: names of the device lead to
// its stand-ins, all others pass.
//
// Programs that look for RDMA devices in /sys and /dev by themselves find ours this way; child
// programs inherit LD_PRELOAD and see it too. Nothing happens until a name of the device is used.
//
// The list has the old entry points of glibc (__xstat) and the checked ones (__open_2) as well,
// because programs built for them call those.
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string>

#include "preload/device_tree.h"
#include "preload/path_map.h"

namespace {

// A name as it is to be used: lives as long as the call.
class FileName {
 public:
  explicit FileName(const char* given) : name_(given) {
    if (!given || !isthmus::preload::is_device_path(given)) return;
    const int saved_errno = errno;
    const std::string& tree = isthmus::preload::device_tree();
    if (!tree.empty()) stand_in_ = isthmus::preload::stand_in(given, tree);
    if (stand_in_) name_ = stand_in_->c_str();
    errno = saved_errno;
  }

  const char* get() const { return name_; }
  bool is_changed() const { return stand_in_.has_value(); }

 private:
  const char* name_;
  std::optional<std::string> stand_in_;
};

// The function that would have been called without us.
template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

template <class Function>
bool is_missing(Function* function) {
  if (!function) errno = ENOSYS;  // Another libc than the one this was written for.
  return !function;
}

}  // namespace

// One wrapper: `names` of the parameters as `declared`; `name` is the one that is a file name.
#define PASS_ON(result, failure, function, name, ...)                       \
  do {                                                                      \
    static auto* const real = next<result>(#function);                      \
    if (is_missing(real)) return failure;                                   \
    const FileName name##_used{name};                                       \
    return __VA_ARGS__;                                                     \
  } while (false)

#pragma GCC visibility push(default)
extern "C" {

using OpenFunction = int(const char*, int, mode_t);
using OpenAtFunction = int(int, const char*, int, mode_t);

#define OPEN_MODE(mode, flags)                                    \
  mode_t mode = 0;                                                \
  if ((flags) & (O_CREAT | O_TMPFILE)) {                          \
    va_list arguments;                                            \
    va_start(arguments, flags);                                   \
    mode = static_cast<mode_t>(va_arg(arguments, int));           \
    va_end(arguments);                                            \
  }

int open(const char* path, int flags, ...) {
  OPEN_MODE(mode, flags)
  PASS_ON(OpenFunction, -1, open, path, real(path_used.get(), flags, mode));
}

int open64(const char* path, int flags, ...) {
  OPEN_MODE(mode, flags)
  PASS_ON(OpenFunction, -1, open64, path, real(path_used.get(), flags, mode));
}

int openat(int folder, const char* path, int flags, ...) {
  OPEN_MODE(mode, flags)
  PASS_ON(OpenAtFunction, -1, openat, path, real(folder, path_used.get(), flags, mode));
}

int openat64(int folder, const char* path, int flags, ...) {
  OPEN_MODE(mode, flags)
  PASS_ON(OpenAtFunction, -1, openat64, path, real(folder, path_used.get(), flags, mode));
}

int __open_2(const char* path, int flags) {
  PASS_ON(int(const char*, int), -1, __open_2, path, real(path_used.get(), flags));
}

int __open64_2(const char* path, int flags) {
  PASS_ON(int(const char*, int), -1, __open64_2, path, real(path_used.get(), flags));
}

int __openat_2(int folder, const char* path, int flags) {
  PASS_ON(int(int, const char*, int), -1, __openat_2, path,
          real(folder, path_used.get(), flags));
}

int __openat64_2(int folder, const char* path, int flags) {
  PASS_ON(int(int, const char*, int), -1, __openat64_2, path,
          real(folder, path_used.get(), flags));
}

FILE* fopen(const char* path, const char* mode) {
  PASS_ON(FILE*(const char*, const char*), nullptr, fopen, path, real(path_used.get(), mode));
}

FILE* fopen64(const char* path, const char* mode) {
  PASS_ON(FILE*(const char*, const char*), nullptr, fopen64, path, real(path_used.get(), mode));
}

int stat(const char* path, struct stat* status) noexcept {
  PASS_ON(int(const char*, struct stat*), -1, stat, path, real(path_used.get(), status));
}

int stat64(const char* path, struct stat64* status) noexcept {
  PASS_ON(int(const char*, struct stat64*), -1, stat64, path, real(path_used.get(), status));
}

int lstat(const char* path, struct stat* status) noexcept {
  PASS_ON(int(const char*, struct stat*), -1, lstat, path, real(path_used.get(), status));
}

int lstat64(const char* path, struct stat64* status) noexcept {
  PASS_ON(int(const char*, struct stat64*), -1, lstat64, path, real(path_used.get(), status));
}

int fstatat(int folder, const char* path, struct stat* status, int flags) noexcept {
  PASS_ON(int(int, const char*, struct stat*, int), -1, fstatat, path,
          real(folder, path_used.get(), status, flags));
}

int fstatat64(int folder, const char* path, struct stat64* status, int flags) noexcept {
  PASS_ON(int(int, const char*, struct stat64*, int), -1, fstatat64, path,
          real(folder, path_used.get(), status, flags));
}

int statx(int folder, const char* path, int flags, unsigned mask, struct statx* status) noexcept {
  PASS_ON(int(int, const char*, int, unsigned, struct statx*), -1, statx, path,
          real(folder, path_used.get(), flags, mask, status));
}

int __xstat(int version, const char* path, struct stat* status) noexcept {
  PASS_ON(int(int, const char*, struct stat*), -1, __xstat, path,
          real(version, path_used.get(), status));
}

int __xstat64(int version, const char* path, struct stat64* status) noexcept {
  PASS_ON(int(int, const char*, struct stat64*), -1, __xstat64, path,
          real(version, path_used.get(), status));
}

int __lxstat(int version, const char* path, struct stat* status) noexcept {
  PASS_ON(int(int, const char*, struct stat*), -1, __lxstat, path,
          real(version, path_used.get(), status));
}

int __lxstat64(int version, const char* path, struct stat64* status) noexcept {
  PASS_ON(int(int, const char*, struct stat64*), -1, __lxstat64, path,
          real(version, path_used.get(), status));
}

int __fxstatat(int version, int folder, const char* path, struct stat* status,
               int flags) noexcept {
  PASS_ON(int(int, int, const char*, struct stat*, int), -1, __fxstatat, path,
          real(version, folder, path_used.get(), status, flags));
}

int __fxstatat64(int version, int folder, const char* path, struct stat64* status,
                 int flags) noexcept {
  PASS_ON(int(int, int, const char*, struct stat64*, int), -1, __fxstatat64, path,
          real(version, folder, path_used.get(), status, flags));
}

int access(const char* path, int mode) noexcept {
  PASS_ON(int(const char*, int), -1, access, path, real(path_used.get(), mode));
}

int euidaccess(const char* path, int mode) noexcept {
  PASS_ON(int(const char*, int), -1, euidaccess, path, real(path_used.get(), mode));
}

int eaccess(const char* path, int mode) noexcept {
  PASS_ON(int(const char*, int), -1, eaccess, path, real(path_used.get(), mode));
}

int faccessat(int folder, const char* path, int mode, int flags) noexcept {
  PASS_ON(int(int, const char*, int, int), -1, faccessat, path,
          real(folder, path_used.get(), mode, flags));
}

DIR* opendir(const char* path) {
  PASS_ON(DIR*(const char*), nullptr, opendir, path, real(path_used.get()));
}

using Filter = int(const struct dirent*);
using Order = int(const struct dirent**, const struct dirent**);
int scandir(const char* path, struct dirent*** names, Filter* filter, Order* order) {
  PASS_ON(int(const char*, struct dirent***, Filter*, Order*), -1, scandir, path,
          real(path_used.get(), names, filter, order));
}

using Filter64 = int(const struct dirent64*);
using Order64 = int(const struct dirent64**, const struct dirent64**);
int scandir64(const char* path, struct dirent64*** names, Filter64* filter, Order64* order) {
  PASS_ON(int(const char*, struct dirent64***, Filter64*, Order64*), -1, scandir64, path,
          real(path_used.get(), names, filter, order));
}

ssize_t readlink(const char* path, char* buffer, size_t bytes) noexcept {
  PASS_ON(ssize_t(const char*, char*, size_t), -1, readlink, path,
          real(path_used.get(), buffer, bytes));
}

ssize_t readlinkat(int folder, const char* path, char* buffer, size_t bytes) noexcept {
  PASS_ON(ssize_t(int, const char*, char*, size_t), -1, readlinkat, path,
          real(folder, path_used.get(), buffer, bytes));
}

ssize_t __readlink_chk(const char* path, char* buffer, size_t bytes, size_t room) noexcept {
  PASS_ON(ssize_t(const char*, char*, size_t, size_t), -1, __readlink_chk, path,
          real(path_used.get(), buffer, bytes, room));
}

// `ls -l` asks for access control lists.
using GetAttribute = ssize_t(const char*, const char*, void*, size_t);
ssize_t getxattr(const char* path, const char* name, void* value, size_t bytes) noexcept {
  PASS_ON(GetAttribute, -1, getxattr, path, real(path_used.get(), name, value, bytes));
}

ssize_t lgetxattr(const char* path, const char* name, void* value, size_t bytes) noexcept {
  PASS_ON(GetAttribute, -1, lgetxattr, path, real(path_used.get(), name, value, bytes));
}

// What was found in the tree goes by the name the program knows.
char* realpath(const char* path, char* resolved) noexcept {
  static auto* const real = next<char*(const char*, char*)>("realpath");
  if (is_missing(real)) return nullptr;
  const FileName used{path};
  char* found = real(used.get(), resolved);
  if (!found || !used.is_changed()) return found;
  const std::string seen = std::strcmp(used.get(), "/dev/null") == 0
                               ? path
                               : isthmus::preload::as_seen(found, isthmus::preload::device_tree());
  if (!resolved) {
    std::free(found);
    return strdup(seen.c_str());
  }
  // The program's buffer has PATH_MAX bytes, as the function demands.
  return std::strcpy(resolved, seen.c_str());
}

char* __realpath_chk(const char* path, char* resolved, size_t) noexcept {
  return realpath(path, resolved);
}

char* canonicalize_file_name(const char* path) noexcept { return realpath(path, nullptr); }

}  // extern "C"
#pragma GCC visibility pop
