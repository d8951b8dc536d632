// The private nodes of libibverbs and the duplicates of before 2007: names without a function.
//
// A driver of rdma-core that a program drags in binds these at load time and would call them only
// for a device of its own, which it never gets from us. So every function of the private nodes is
// one stub that returns ENOSYS, registration of a driver does nothing, and only the one that
// programs do call, ibv_query_gid_type, is real.
//
// The names are defined in assembly because one function has to carry several versioned names,
// which C++ cannot say. Each alias is made, versioned and dropped again (`remove`).
#include <infiniband/verbs.h>

#include <cerrno>
#include <cstdint>

#include "base/log.h"
#include "verbs/port.h"

#pragma GCC visibility push(default)
extern "C" {

[[gnu::used]] std::intptr_t isthmus_private_stub() { return ENOSYS; }

// Functions whose result is a pointer: null is their failure.
[[gnu::used]] void* isthmus_private_null_stub() {
  errno = ENOSYS;
  return nullptr;
}

// Of IBVERBS_1.0 as it was until 2007: objects had another layout.
[[gnu::used]] void* isthmus_ancient_stub() {
  ISTHMUS_LOG(kError, "this program was built for the libibverbs of before 2007; rebuild it");
  errno = ENOSYS;
  return nullptr;
}

[[gnu::used]] void isthmus_register_driver_stub() {}

// The real one stands here because an alias needs its target in the same file.
[[gnu::used]] int isthmus_query_gid_type(ibv_context* context, std::uint8_t port_number,
                                         unsigned index, int* type) {
  return isthmus::verbs::query_gid_type_of_sysfs(context, port_number, index, type);
}

// Drivers read and write it; its value means nothing here.
[[gnu::used]] bool isthmus_allow_disassociate_destroy = false;

}  // extern "C"
#pragma GCC visibility pop

// NOLINTBEGIN: assembly is made of strings.
#define VERSIONED(name, at_node, mangled, type, target)                        \
  asm(".globl isthmus_" mangled "\n.type isthmus_" mangled ", " type           \
      "\n.set isthmus_" mangled ", " target "\n.symver isthmus_" mangled ", "  \
      name at_node ", remove");

// Node 34 is the default version: what an unversioned dlsym() finds.
#define IN_PRIVATE_NODES(name, type, target)                                             \
  VERSIONED(name, "@IBVERBS_PRIVATE_25", name "_25", type, target)                       \
  VERSIONED(name, "@IBVERBS_PRIVATE_33", name "_33", type, target)                       \
  VERSIONED(name, "@@IBVERBS_PRIVATE_34", name "_34", type, target)                      \
  VERSIONED(name, "@IBVERBS_PRIVATE_57", name "_57", type, target)                       \
  VERSIONED(name, "@IBVERBS_PRIVATE_59", name "_59", type, target)                       \
  VERSIONED(name, "@IBVERBS_PRIVATE_64", name "_64", type, target)                       \
  VERSIONED(name, "@IBVERBS_PRIVATE_65", name "_65", type, target)

#define PRIVATE(name) IN_PRIVATE_NODES(#name, "@function", "isthmus_private_stub")
#define PRIVATE_NULL(name) IN_PRIVATE_NODES(#name, "@function", "isthmus_private_null_stub")
#include "verbs/versions/private_symbols.def"

IN_PRIVATE_NODES("ibv_query_gid_type", "@function", "isthmus_query_gid_type")
IN_PRIVATE_NODES("verbs_allow_disassociate_destroy", "@object",
                 "isthmus_allow_disassociate_destroy")

// The node is part of this name.
#define REGISTER_DRIVER(number)                                                              \
  VERSIONED("verbs_register_driver_" #number, "@@IBVERBS_PRIVATE_" #number,                  \
            "verbs_register_driver_" #number, "@function", "isthmus_register_driver_stub")
REGISTER_DRIVER(25)
REGISTER_DRIVER(33)
REGISTER_DRIVER(34)
REGISTER_DRIVER(57)
REGISTER_DRIVER(59)
REGISTER_DRIVER(64)
REGISTER_DRIVER(65)

#define ANCIENT(name) \
  VERSIONED(#name, "@IBVERBS_1.0", #name "_1_0", "@function", "isthmus_ancient_stub")
#include "verbs/versions/ancient_symbols.def"
VERSIONED("ibv_register_driver", "@IBVERBS_1.1", "ibv_register_driver_1_1", "@function",
          "isthmus_register_driver_stub")
// NOLINTEND
