// Importing: another handle for a device, a protection domain, a region or a device memory that
// this process has already, as programs do that pass descriptors and handles between their parts.
//
// With hardware the kernel shares them between processes too. Ours live in the process that made
// them, so a descriptor from another process is not known here.
#include <infiniband/verbs.h>

#include <algorithm>

#include "verbs/context.h"
#include "verbs/inheritance.h"

namespace isthmus::verbs {
namespace {

template <class Object>
Object* find(const std::unordered_set<Object*>& objects, std::uint32_t handle) {
  const auto found =
      std::ranges::find_if(objects, [&](const Object* one) { return one->handle == handle; });
  return found == objects.end() ? nullptr : *found;
}

}  // namespace
}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

ibv_context* ibv_import_device(int cmd_fd) {
  using namespace isthmus;
  const auto file = os::file_identity(cmd_fd);
  if (!file) return verbs::no_object(file.error());
  verbs::Context* context = verbs::find_context(*file);
  if (!context) return verbs::no_object(EOPNOTSUPP);
  if (context->is_inherited()) return verbs::no_object(EIO);
  return context->import_again();
}

ibv_pd* ibv_import_pd(ibv_context* abi, uint32_t pd_handle) {
  using namespace isthmus::verbs;
  Context& context = Context::of(abi);
  if (context.is_inherited()) return no_object(EIO);
  const std::scoped_lock guard{context.lock};
  const Pd* known = find(context.objects.pds, pd_handle);
  if (!known) return no_object(ENOENT);
  auto made = std::make_unique<Pd>();
  made->context = abi;
  made->handle = pd_handle;
  made->owner = &context;
  made->root = known->root;
  made->is_imported = true;
  return made.release();
}

void ibv_unimport_pd(ibv_pd* pd) { delete &isthmus::verbs::Pd::of(pd); }

ibv_mr* ibv_import_mr(ibv_pd* abi, uint32_t mr_handle) {
  using namespace isthmus::verbs;
  Pd& pd = Pd::of(abi);
  Context& context = *pd.owner;
  if (context.is_inherited()) return no_object(EIO);
  const std::scoped_lock guard{context.lock};
  const Mr* known = find(context.objects.mrs, mr_handle);
  if (!known || &known->region->pd() != &pd.domain()) return no_object(ENOENT);
  auto made = std::make_unique<Mr>();
  made->context = abi->context;
  made->pd = abi;
  // The address is the exporter's business; keys and length are what an importer needs.
  made->length = known->length;
  made->handle = mr_handle;
  made->lkey = known->lkey;
  made->rkey = known->rkey;
  made->owner = &context;
  return made.release();
}

void ibv_unimport_mr(ibv_mr* mr) { delete static_cast<isthmus::verbs::Mr*>(mr); }

ibv_dm* ibv_import_dm(ibv_context* abi, uint32_t dm_handle) {
  using namespace isthmus::verbs;
  Context& context = Context::of(abi);
  if (context.is_inherited()) return no_object(EIO);
  const std::scoped_lock guard{context.lock};
  const DeviceMemory* known = find(context.objects.device_memories, dm_handle);
  if (!known) return no_object(ENOENT);
  auto made = std::make_unique<DeviceMemory>();
  static_cast<ibv_dm&>(*made) = *known;
  made->context = abi;
  made->owner = &context;
  made->bytes = known->bytes;
  made->length = known->length;
  return made.release();
}

void ibv_unimport_dm(ibv_dm* dm) { delete static_cast<isthmus::verbs::DeviceMemory*>(dm); }

}  // extern "C"
#pragma GCC visibility pop
