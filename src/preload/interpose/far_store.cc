#include "preload/interpose/far_store.h"

#include <cstdlib>

#include "farmem/encrypt/encrypted_store.h"
#include "farmem/remote/verbs_store.h"
#include "os/process.h"

namespace isthmus::preload {

Result<std::unique_ptr<farmem::Store>> connect_far_store(const FarSettings& settings) {
  farmem::VerbsStoreOptions options{.bytes = settings.far_bytes, .replicas = settings.replicas};
  for (const std::string& node : settings.nodes) {
    options.nodes.push_back(ISTHMUS_TRY(farmem::parse_node_address(node)));
  }
  if (options.nodes.empty()) {
    return fail(ErrorCode::kNotFound,
                "no memory node is known: ISTHMUS_MEMORY_NODES is empty; start one with `isthmus "
                "memory serve`");
  }
  const char* label = std::getenv("ISTHMUS_LABEL");
  options.label = label != nullptr ? label : os::program_name();
  std::unique_ptr<farmem::Store> store = ISTHMUS_TRY(farmem::VerbsStore::connect(options));
  if (!settings.encrypt) return store;
  return ISTHMUS_TRY(farmem::EncryptedStore::create(std::move(store)));
}

}  // namespace isthmus::preload
