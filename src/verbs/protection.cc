// Protection domains, parent domains, thread domains and XRC domains.
#include <fcntl.h>
#include <infiniband/verbs.h>

#include "verbs/context.h"
#include "verbs/operations.h"

namespace isthmus::verbs {

ibv_td* alloc_td(ibv_context* abi, ibv_td_init_attr* init) {
  Context& context = Context::of(abi);
  if (init->comp_mask != 0) return no_object(EINVAL);
  auto made = std::make_unique<ThreadDomain>();
  made->context = abi;
  made->owner = &context;
  return made.release();
}

int dealloc_td(ibv_td* abi) {
  auto* td = static_cast<ThreadDomain*>(abi);
  {
    const std::scoped_lock guard{td->owner->lock};
    if (td->in_use != 0) return EBUSY;
  }
  delete td;
  return 0;
}

// A thread domain promises that no two threads use its objects at once, which could save locking;
// we lock all the same. The allocator is for buffers that a device and the program share: there is
// no device, so it is never called.
ibv_pd* alloc_parent_domain(ibv_context* abi, ibv_parent_domain_init_attr* attr) {
  Context& context = Context::of(abi);
  constexpr std::uint32_t kKnown =
      IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS | IBV_PARENT_DOMAIN_INIT_ATTR_PD_CONTEXT;
  if ((attr->comp_mask & ~kKnown) != 0) return no_object(EOPNOTSUPP);
  if (!attr->pd) return no_object(EINVAL);
  const bool has_allocator = attr->comp_mask & IBV_PARENT_DOMAIN_INIT_ATTR_ALLOCATORS;
  if (has_allocator && (!attr->alloc || !attr->free)) return no_object(EINVAL);

  auto made = std::make_unique<Pd>();
  made->context = abi;
  made->owner = &context;
  made->root = Pd::of(attr->pd).root;
  made->handle = made->root->handle;
  made->thread_domain = static_cast<ThreadDomain*>(attr->td);
  const std::scoped_lock guard{context.lock};
  ++made->root->parent_domains;
  if (made->thread_domain) ++made->thread_domain->in_use;
  context.objects.pds.insert(made.get());
  return made.release();
}

ibv_xrcd* open_xrcd(ibv_context* abi, ibv_xrcd_init_attr* attr) {
  Context& context = Context::of(abi);
  constexpr std::uint32_t kNeeded = IBV_XRCD_INIT_ATTR_FD | IBV_XRCD_INIT_ATTR_OFLAGS;
  if (attr->comp_mask >= IBV_XRCD_INIT_ATTR_RESERVED) return no_object(EOPNOTSUPP);
  if ((attr->comp_mask & kNeeded) != kNeeded) return no_object(EINVAL);
  if (context.is_inherited()) return no_object(EIO);

  os::FileIdentity file;
  if (attr->fd >= 0) {
    auto identity = os::file_identity(attr->fd);
    if (!identity) return no_object(identity.error());
    file = *identity;
  }
  const std::scoped_lock guard{context.lock};
  std::shared_ptr<rdma::XrcDomain> domain;
  if (attr->fd >= 0) domain = context.objects.xrc_files[file].lock();
  if (domain && (attr->oflags & O_EXCL)) return no_object(EINVAL);
  if (!domain) {
    if (attr->fd >= 0 && !(attr->oflags & O_CREAT)) return no_object(EAGAIN);
    auto created = context.engine().create_xrcd();
    if (!created) return no_object(created.error());
    domain = std::move(*created);
    if (attr->fd >= 0) context.objects.xrc_files[file] = domain;
  }
  auto made = std::make_unique<Xrcd>();
  made->context = abi;
  made->owner = &context;
  made->domain = std::move(domain);
  context.objects.xrcds.insert(made.get());
  return made.release();
}

int close_xrcd(ibv_xrcd* abi) {
  auto* xrcd = static_cast<Xrcd*>(abi);
  Context& context = *xrcd->owner;
  if (context.is_inherited()) return EIO;
  {
    const std::scoped_lock guard{context.lock};
    if (xrcd->domain.use_count() == 1 && xrcd->domain->in_use != 0) return EBUSY;
    context.objects.xrcds.erase(xrcd);
    xrcd->domain.reset();
  }
  delete xrcd;
  return 0;
}

}  // namespace isthmus::verbs

#pragma GCC visibility push(default)
extern "C" {

ibv_pd* ibv_alloc_pd(ibv_context* abi) {
  using namespace isthmus::verbs;
  Context& context = Context::of(abi);
  if (context.is_inherited()) return no_object(EIO);
  const std::scoped_lock guard{context.lock};
  if (context.objects.pds.size() >= kMaxProtectionDomains) return no_object(ENOMEM);
  auto created = context.engine().create_pd();
  if (!created) return no_object(created.error());
  auto made = std::make_unique<Pd>();
  made->context = abi;
  made->handle = (*created)->number();
  made->owner = &context;
  made->own = std::move(*created);
  made->root = made.get();
  context.objects.pds.insert(made.get());
  return made.release();
}

int ibv_dealloc_pd(ibv_pd* abi) {
  using namespace isthmus::verbs;
  Pd& pd = Pd::of(abi);
  Context& context = *pd.owner;
  if (context.is_inherited()) return verbs_error(EIO);
  {
    const std::scoped_lock guard{context.lock};
    if (pd.parent_domains != 0 || pd.named_by != 0) return verbs_error(EBUSY);
    if (pd.own && pd.own->in_use != 0) return verbs_error(EBUSY);
    if (!pd.own) {
      --pd.root->parent_domains;
      if (pd.thread_domain) --pd.thread_domain->in_use;
    }
    context.objects.pds.erase(&pd);
    pd.own.reset();
  }
  delete &pd;
  return 0;
}

}  // extern "C"
#pragma GCC visibility pop
