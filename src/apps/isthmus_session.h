// A command's talk with the daemon, and what becomes of its errors.
#pragma once

#include <memory>
#include <string>

#include "apps/isthmus_options.h"
#include "base/result.h"
#include "control/grpc/control_client.h"

namespace isthmus::apps {

std::string attach_socket(const GlobalOptions& global);

// kRefused: there is no daemon; kDenied: it is another user's. Both say what to do.
Result<std::unique_ptr<control::ControlClient>> connect_to_daemon(const GlobalOptions& global);

int exit_status_of(const Error& error);

}  // namespace isthmus::apps
