// What the daemon tells its operator, from what its services know.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "control/function_service.h"
#include "control/grpc/report.h"

namespace isthmus::apps {

control::FunctionReport report_of(const control::Function& function,
                                  const control::StatusDetail& detail);

std::vector<control::CounterReport> report_of(const control::FunctionCounters& counters);

// One for each admission of every function, judged by `gate`.
std::vector<control::ConnectionReport> report_connections(const control::FunctionService& functions,
                                                          control::AdmissionGate& gate);

}  // namespace isthmus::apps
