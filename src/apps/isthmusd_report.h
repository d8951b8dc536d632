// What the daemon tells its operator, from what its services know.
#pragma once

#include <vector>

#include "control/function_service.h"
#include "control/grpc/report.h"

namespace isthmus::apps {

control::FunctionReport report_of(const control::Function& function,
                                  const control::StatusDetail& detail);

std::vector<control::CounterReport> report_of(const control::FunctionCounters& counters);

}  // namespace isthmus::apps
