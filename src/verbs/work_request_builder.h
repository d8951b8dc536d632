// WorkRequestBuilder: the ibv_wr_* functions of a QP: a list of work requests made step by step
// and posted whole.
//
// From wr_start() to wr_complete() or wr_abort() the list belongs to the thread that builds it;
// other threads wait in wr_start(). The functions in between return nothing, so the first mistake
// is kept and wr_complete() returns it, posting none of the list.
#pragma once

#include <infiniband/verbs.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "verbs/context_lock.h"
#include "verbs/objects.h"

namespace isthmus::verbs {

class WorkRequestBuilder {
 public:
  // All memory a list can need is taken here. `cap` is what the QP was given.
  explicit WorkRequestBuilder(const ibv_qp_cap& cap);

  // Puts the functions into the QP. False: not all of IBV_QP_EX_WITH_* in `operations` are for a
  // QP of this type.
  static bool fill(Qp& qp, std::uint64_t operations);

  void start();
  int complete(Qp& qp);
  void abort();

  // A new request, taking wr_id and wr_flags from the QP. Never null: past the QP's capacity it
  // is one that is not posted.
  ibv_send_wr& add(const ibv_qp_ex& qp, ibv_wr_opcode opcode);
  // Setters for the newest request.
  ibv_send_wr& newest();
  void set_sges(const ibv_sge* sges, std::size_t count);
  void set_value(const void* value);  // Eight bytes, of an atomic write.
  void set_inline(const ibv_data_buf* buffers, std::size_t count);

 private:
  void fail(int error) {
    if (error_ == 0) error_ = error;
  }

  const ibv_qp_cap cap_;
  ContextLock lock_;
  std::vector<ibv_send_wr> requests_;  // max_send_wr, and the one that is not posted.
  std::vector<ibv_sge> sges_;          // max_send_sge for each.
  std::vector<std::byte> inline_;      // max_inline_data for each.
  std::vector<std::uint64_t> values_;  // Of atomic writes, one for each.
  std::size_t count_ = 0;
  int error_ = 0;
};

}  // namespace isthmus::verbs
