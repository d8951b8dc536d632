// Feeds arbitrary messages to every decoder of the attach protocol, and to the greeting and the
// requests as the daemon takes them.
#include "attach/attach_protocol.h"

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  namespace attach = isthmus::attach;
  const auto message = std::as_bytes(std::span(data, size));
  if (const auto hello = attach::decode_hello(message)) {
    // What is accepted must be text that ends inside its field.
    if (std::string(hello->label.data()).size() >= hello->label.size()) std::abort();
    if (std::string(hello->program.data()).size() >= hello->program.size()) std::abort();
  }
  if (const auto request = attach::decode_function_request(message)) {
    const auto* admit = std::get_if<attach::Admit>(&*request);
    if (admit && admit->qpn >= 1u << 24) std::abort();
  }
  if (const auto grant = attach::decode_grant(message)) {
    if (grant->gids.count > grant->gids.entries.size()) std::abort();
  }
  (void)attach::decode_acknowledge(message);
  (void)attach::decode_welcome(message);
  (void)attach::decode_admission(message);
  (void)attach::decode_event(message);
  return 0;
}
