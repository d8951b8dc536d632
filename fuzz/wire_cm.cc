// Connection manager MADs, and the rdma_cm header in their private data: a decoded message encodes
// to one that decodes to the same.
#include <array>
#include <cstdlib>

#include "wire/cm_message.h"
#include "wire/rdma_cm_header.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace isthmus::wire;
  const std::span<const std::byte> input = std::as_bytes(std::span(data, size));
  const auto message = decode_cm(input);
  if (!message) return 0;

  std::array<std::byte, kMadBytes> again;
  encode_cm(*message, decode_mad_header(input)->transaction_id, again);
  if (decode_cm(again) != *message) abort();

  const CmReq* req = std::get_if<CmReq>(&*message);
  if (req == nullptr) return 0;
  const auto header = decode_rdma_cm_header(req->private_data);
  if (!header) return 0;
  std::array<std::byte, kRdmaCmHeaderBytes> bytes;
  encode(*header, bytes.data());
  const auto same = decode_rdma_cm_header(bytes);
  // An IPv4 address written in an IPv6 field comes back in the IPv4 form, with the same value.
  if (!same || same->source_port != header->source_port ||
      same->destination != header->destination) {
    abort();
  }
  return 0;
}
