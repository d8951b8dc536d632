// Feeds arbitrary messages to both decoders of the memory node protocol; what they accept is in
// range and encodes back to the same bytes, but for those that are reserved.
#include "farmem/remote/node_protocol.h"

#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace isthmus::farmem;
  const auto message = std::as_bytes(std::span(data, size));
  if (const auto request = decode_node_request(message)) {
    require(encode(request->sequence, request->body).count == size);
    if (const auto* hello = std::get_if<Hello>(&request->body)) {
      require(std::string(hello->label.data()).size() < hello->label.size());
    }
    if (const auto* open = std::get_if<OpenChannel>(&request->body)) {
      require(open->end.qpn < 1u << 24 && open->end.mtu <= 5);
    }
  }
  if (const auto reply = decode_node_reply(message)) {
    require(encode(reply->sequence, reply->body).count == size);
    if (const auto* granted = std::get_if<Granted>(&reply->body)) {
      require(granted->count <= kMostSlabsOfMessage);
    }
    if (const auto* refused = std::get_if<Refused>(&reply->body)) {
      (void)error_code_of(refused->reason);
      require(std::string(refused->text.data()).size() < refused->text.size());
    }
  }
  return 0;
}
