// The words for the reasons of a REJ.
#include <array>

#include "wire/cm_message.h"

namespace isthmus::wire {
namespace {

// By number, from 0, which is no reason; 34 is reserved.
constexpr std::array<const char*, 36> kReasonTexts = {
    nullptr,
    "no queue pair available",
    "no end-to-end context available",
    "no resources available",
    "timeout",
    "unsupported request",
    "invalid communication id",
    "invalid communication instance",
    "invalid service id",
    "invalid transport service type",
    "stale connection",
    "RDC does not exist",
    "primary remote port GID rejected",
    "primary remote port LID rejected",
    "invalid primary SL",
    "invalid primary traffic class",
    "invalid primary hop limit",
    "invalid primary packet rate",
    "alternate remote port GID rejected",
    "alternate remote port LID rejected",
    "invalid alternate SL",
    "invalid alternate traffic class",
    "invalid alternate hop limit",
    "invalid alternate packet rate",
    "port and CM redirection",
    "port redirection",
    "invalid path MTU",
    "insufficient responder resources",
    "consumer reject",
    "RNR retry count reject",
    "duplicate local communication id",
    "invalid class version",
    "invalid primary flow label",
    "invalid alternate flow label",
    nullptr,
    "vendor option not supported",
};
static_assert(kReasonTexts.size() ==
              static_cast<std::size_t>(RejectReason::kVendorOptionNotSupported) + 1);

}  // namespace

const char* to_string(RejectReason reason) {
  const auto number = static_cast<std::size_t>(reason);
  if (number >= kReasonTexts.size() || kReasonTexts[number] == nullptr) return "unknown reason";
  return kReasonTexts[number];
}

}  // namespace isthmus::wire
