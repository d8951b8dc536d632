// ErrorCode and the status codes of gRPC, both ways. For the two files that include gRPC.
#pragma once

#include <grpcpp/support/status.h>

#include "base/result.h"

namespace isthmus::control {

inline ::grpc::Status to_grpc(const Error& error) {
  const auto code = [&] {
    switch (error.code) {
      case ErrorCode::kInvalid:
        return ::grpc::StatusCode::INVALID_ARGUMENT;
      case ErrorCode::kNotFound:
        return ::grpc::StatusCode::NOT_FOUND;
      case ErrorCode::kExists:
        return ::grpc::StatusCode::ALREADY_EXISTS;
      case ErrorCode::kBusy:
        return ::grpc::StatusCode::FAILED_PRECONDITION;
      case ErrorCode::kNoMemory:
        return ::grpc::StatusCode::RESOURCE_EXHAUSTED;
      case ErrorCode::kDenied:
        return ::grpc::StatusCode::PERMISSION_DENIED;
      case ErrorCode::kUnsupported:
        return ::grpc::StatusCode::UNIMPLEMENTED;
      case ErrorCode::kTimedOut:
        return ::grpc::StatusCode::DEADLINE_EXCEEDED;
      case ErrorCode::kClosed:
        return ::grpc::StatusCode::UNAVAILABLE;
      default:
        return ::grpc::StatusCode::INTERNAL;
    }
  }();
  return {code, error.message};
}

inline Error from_grpc(const ::grpc::Status& status) {
  const auto code = [&] {
    switch (status.error_code()) {
      case ::grpc::StatusCode::INVALID_ARGUMENT:
        return ErrorCode::kInvalid;
      case ::grpc::StatusCode::NOT_FOUND:
        return ErrorCode::kNotFound;
      case ::grpc::StatusCode::ALREADY_EXISTS:
        return ErrorCode::kExists;
      case ::grpc::StatusCode::FAILED_PRECONDITION:
        return ErrorCode::kBusy;
      case ::grpc::StatusCode::RESOURCE_EXHAUSTED:
        return ErrorCode::kNoMemory;
      case ::grpc::StatusCode::PERMISSION_DENIED:
        return ErrorCode::kDenied;
      case ::grpc::StatusCode::UNIMPLEMENTED:
        return ErrorCode::kUnsupported;
      case ::grpc::StatusCode::DEADLINE_EXCEEDED:
        return ErrorCode::kTimedOut;
      case ::grpc::StatusCode::UNAVAILABLE:
        return ErrorCode::kClosed;
      default:
        return ErrorCode::kIo;
    }
  }();
  return {code, status.error_message()};
}

}  // namespace isthmus::control
