#include "wire/decode_error.h"

namespace isthmus::wire {

const char* to_string(DecodeError error) {
  switch (error) {
    case DecodeError::kTooShort:
      return "too short";
    case DecodeError::kBadLength:
      return "contradictory length";
    case DecodeError::kUnknownOpcode:
      return "unknown opcode";
    case DecodeError::kBadVersion:
      return "unknown version";
    case DecodeError::kBadPadding:
      return "more padding than payload";
    case DecodeError::kTrailingBytes:
      return "bytes after the end";
    case DecodeError::kUnknownMessage:
      return "unexpected message";
    case DecodeError::kBadMagic:
      return "not a file of this format";
    case DecodeError::kBadChecksum:
      return "wrong checksum";
  }
  return "unknown error";
}

}  // namespace isthmus::wire
