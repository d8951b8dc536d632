// Reports as JSON, for programs. The one place that includes the JSON library.
#pragma once

#include <string>
#include <vector>

#include "apps/isthmus_doctor_findings.h"
#include "apps/isthmus_far_text.h"
#include "apps/isthmus_lab_plan.h"
#include "apps/isthmus_status_text.h"
#include "control/grpc/report.h"

namespace isthmus::apps {

// Names are those of control.proto; each function also has its rates, per second.
std::string status_json(const control::StatusReport& now, const control::StatusReport* before);
std::string policy_json(const control::PolicyReport& policy);
std::string far_processes_json(const std::vector<FarProcess>& processes);
std::string findings_json(const std::vector<Finding>& findings);
std::string lab_json(const std::vector<LabHostStatus>& hosts);
// `daemon` null: none answers.
std::string version_json(const std::string& program, const control::VersionReport* daemon);

}  // namespace isthmus::apps
