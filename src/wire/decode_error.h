// Why bytes from outside were not understood. An enum and not an Error: on the packet path a bad
// packet is an ordinary outcome, counted and dropped without building a message.
#pragma once

#include <cstdint>

namespace isthmus::wire {

enum class DecodeError : std::uint8_t {
  kTooShort,        // Ends before the headers that its own first bytes promise.
  kBadLength,       // Contradicts a length field, or is no multiple of 4 where it must be.
  kUnknownOpcode,   // The base transport header names no operation.
  kBadVersion,      // A version field of another protocol generation.
  kBadPadding,      // More padding than payload.
  kTrailingBytes,   // A payload on an operation that has none.
  kUnknownMessage,  // A MAD of a class, method or attribute that is not expected here.
  kBadMagic,        // A file of another format.
  kBadChecksum,     // The checksum of the header does not match.
};

const char* to_string(DecodeError error);

}  // namespace isthmus::wire
