// Which file names stand for the device, and what is opened instead.
//
// Pure: names in, names out. `tree` is the folder that holds the stand-ins (device_tree.h).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace isthmus::preload {

// Names below these are ours; a cheap test for every name a program uses.
bool is_device_path(std::string_view path);

// For a path of which is_device_path() is true. The device nodes become /dev/null, which is a
// character device that everybody may open; the rest is looked up in the tree. Nothing: the path
// climbs out again ("..") and is left alone.
std::optional<std::string> stand_in(std::string_view path, std::string_view tree);

// A path that realpath() found in the tree, as the program knows it.
std::string as_seen(std::string_view path, std::string_view tree);

}  // namespace isthmus::preload
