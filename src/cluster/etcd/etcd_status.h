// What etcd answers, as errors of a directory. For the files that include gRPC.
#pragma once

#include <grpcpp/support/status.h>

#include <string_view>

#include "base/result.h"

namespace isthmus::cluster {

inline std::unexpected<Error> etcd_failure(const ::grpc::Status& status) {
  const std::string& message = status.error_message();
  const ErrorCode code = [&] {
    switch (status.error_code()) {
      case ::grpc::StatusCode::UNAVAILABLE:
      case ::grpc::StatusCode::DEADLINE_EXCEEDED:
      case ::grpc::StatusCode::CANCELLED:  // Its server stopped in the middle.
        return ErrorCode::kUnreachable;
      case ::grpc::StatusCode::NOT_FOUND:
        return ErrorCode::kNotFound;
      case ::grpc::StatusCode::INVALID_ARGUMENT:
        return ErrorCode::kInvalid;
      case ::grpc::StatusCode::OUT_OF_RANGE:
        // Forgotten, or not reached yet: one code, told apart by etcd's words alone.
        return message.find("compacted") != std::string::npos ? ErrorCode::kStale
                                                              : ErrorCode::kInvalid;
      case ::grpc::StatusCode::RESOURCE_EXHAUSTED:
        return ErrorCode::kNoMemory;
      case ::grpc::StatusCode::PERMISSION_DENIED:
      case ::grpc::StatusCode::UNAUTHENTICATED:
        return ErrorCode::kDenied;
      case ::grpc::StatusCode::UNIMPLEMENTED:
        return ErrorCode::kUnsupported;
      default:
        return ErrorCode::kIo;
    }
  }();
  return fail(code, "etcd: %s", message.c_str());
}

}  // namespace isthmus::cluster
