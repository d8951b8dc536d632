// PageCipher: AES-256-GCM of single pages, under a key that nobody but this process ever has.
//
// Primer: each page that is sealed gets the next number of one counter as its nonce, so no nonce is
// used twice under the key. Number and tag stay here, in the seal; the ciphertext alone goes out.
// Whoever holds it can neither read it nor give back anything else, an older page either, without
// open() noticing.
//
// Cost: about 1 µs a page with AES and carry-less multiplication in the processor.
//
// Threading: one thread at a time. seal() and open() allocate nothing while they succeed.
// Spec: NIST SP 800-38D.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/result.h"

namespace isthmus::farmem {

struct PageSeal {
  std::uint64_t number = 0;  // 0: never sealed.
  std::array<std::byte, 16> tag{};
};

class PageCipher {
 public:
  static constexpr std::size_t kKeyBytes = 32;
  using Key = std::array<std::byte, kKeyBytes>;

  static Result<std::unique_ptr<PageCipher>> create(const Key& key);
  ~PageCipher();
  PageCipher(const PageCipher&) = delete;
  PageCipher& operator=(const PageCipher&) = delete;

  // `number` is new under this key, and not 0. 4096 bytes each.
  PageSeal seal(std::uint64_t number, const std::byte* page, std::byte* sealed);
  // False: these are not the bytes that were sealed so.
  [[nodiscard]] bool open(const PageSeal& seal, const std::byte* sealed, std::byte* page);

 private:
  struct Contexts;
  explicit PageCipher(std::unique_ptr<Contexts> contexts);

  std::unique_ptr<Contexts> contexts_;
};

}  // namespace isthmus::farmem
