#include "farmem/encrypt/page_cipher.h"

#include <openssl/evp.h>

#include <cstring>

#include "base/assert.h"
#include "os/address_range.h"

namespace isthmus::farmem {
namespace {

constexpr int kPageBytes = static_cast<int>(os::kPageBytes);
constexpr std::size_t kNonceBytes = 12;  // What GCM takes as it is.

using Nonce = std::array<unsigned char, kNonceBytes>;

Nonce nonce_of(std::uint64_t number) {
  Nonce nonce{};
  std::memcpy(nonce.data(), &number, sizeof number);
  return nonce;
}

// SAFETY: OpenSSL's bytes are unsigned char.
unsigned char* raw(std::byte* bytes) { return reinterpret_cast<unsigned char*>(bytes); }
const unsigned char* raw(const std::byte* bytes) {
  return reinterpret_cast<const unsigned char*>(bytes);
}

struct ContextEnd {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using Context = std::unique_ptr<EVP_CIPHER_CTX, ContextEnd>;

}  // namespace

struct PageCipher::Contexts {
  Context sealing;
  Context opening;
};

Result<std::unique_ptr<PageCipher>> PageCipher::create(const Key& key) {
  auto contexts = std::make_unique<Contexts>();
  contexts->sealing.reset(EVP_CIPHER_CTX_new());
  contexts->opening.reset(EVP_CIPHER_CTX_new());
  const bool ready =
      contexts->sealing && contexts->opening &&
      EVP_EncryptInit_ex(contexts->sealing.get(), EVP_aes_256_gcm(), nullptr, raw(key.data()),
                         nullptr) == 1 &&
      EVP_DecryptInit_ex(contexts->opening.get(), EVP_aes_256_gcm(), nullptr, raw(key.data()),
                         nullptr) == 1;
  if (!ready) return fail(ErrorCode::kUnsupported, "this OpenSSL has no AES-256-GCM");
  return std::unique_ptr<PageCipher>(new PageCipher(std::move(contexts)));
}

PageCipher::PageCipher(std::unique_ptr<Contexts> contexts) : contexts_(std::move(contexts)) {}
PageCipher::~PageCipher() = default;

PageSeal PageCipher::seal(std::uint64_t number, const std::byte* page, std::byte* sealed) {
  EVP_CIPHER_CTX* context = contexts_->sealing.get();
  PageSeal seal{.number = number};
  int length = 0;
  const bool done =
      EVP_EncryptInit_ex(context, nullptr, nullptr, nullptr, nonce_of(number).data()) == 1 &&
      EVP_EncryptUpdate(context, raw(sealed), &length, raw(page), kPageBytes) == 1 &&
      EVP_EncryptFinal_ex(context, raw(sealed) + length, &length) == 1 &&
      EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_GET_TAG, static_cast<int>(seal.tag.size()),
                          seal.tag.data()) == 1;
  ISTHMUS_ASSERT(done);  // Nothing of it depends on the bytes.
  return seal;
}

bool PageCipher::open(const PageSeal& seal, const std::byte* sealed, std::byte* page) {
  EVP_CIPHER_CTX* context = contexts_->opening.get();
  PageSeal copy = seal;  // OpenSSL wants to be able to write to the tag.
  int length = 0;
  return seal.number != 0 &&
         EVP_DecryptInit_ex(context, nullptr, nullptr, nullptr, nonce_of(seal.number).data()) ==
             1 &&
         EVP_DecryptUpdate(context, raw(page), &length, raw(sealed), kPageBytes) == 1 &&
         EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_GCM_SET_TAG, static_cast<int>(copy.tag.size()),
                             copy.tag.data()) == 1 &&
         EVP_DecryptFinal_ex(context, raw(page) + length, &length) == 1;
}

}  // namespace isthmus::farmem
