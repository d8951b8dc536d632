// Which lines of a page differ from its twin, with the widest registers the processor has.
//
// Cost: 49 ns (AVX-512), 65 ns (AVX2) with both pages in the first-level cache; 600 to 700 ns from
// memory, whatever the registers.
//
// The pages must not change meanwhile: callers compare copies.
#pragma once

#include <cstddef>
#include <cstdint>

#include "memory/line_set.h"

namespace isthmus::memory {

enum class CompareKind : std::uint8_t { kPortable, kAvx2, kAvx512 };
const char* to_string(CompareKind kind);

// The best that this processor can do.
CompareKind best_compare_kind();

// Both 4096 bytes, of any alignment.
LineMask differing_lines(const std::byte* page, const std::byte* twin);
// By a kind that the processor must have: at most best_compare_kind().
LineMask differing_lines(const std::byte* page, const std::byte* twin, CompareKind kind);

}  // namespace isthmus::memory
