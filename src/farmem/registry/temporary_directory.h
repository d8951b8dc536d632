// TemporaryDirectory: a SQLite directory in a folder of its own, for tests.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <string>

#include "cluster/directory/sqlite_directory.h"

namespace isthmus::farmem {

class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = (std::filesystem::temp_directory_path() / "isthmus-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(folder_); }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  std::string file() const { return (folder_ / "directory.db").string(); }
  std::unique_ptr<cluster::Directory> open() const {
    auto opened = cluster::open_sqlite_directory({.path = file(), .wall_clock_ns = {}});
    EXPECT_TRUE(opened) << (opened ? "" : opened.error().message);
    return opened ? std::move(*opened) : nullptr;
  }

 private:
  std::filesystem::path folder_;
};

}  // namespace isthmus::farmem
