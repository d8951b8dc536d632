// Prints what our decoders make of each packet of a pcap file, one line each, for icrc_scapy.py to
// compare with what scapy put in:
//
//     opcode solicited pad_count dest_qpn ack_request psn payload_bytes icrc match ip_id
//
// Numbers are decimal; icrc is - for a packet without the DF flag, which we only receive; match is
// one of mismatch, exact, recovered. Of a packet that does not decode, the line is the reason.
#include <cstdio>
#include <fstream>
#include <iterator>
#include <vector>

#include "wire/icrc.h"
#include "wire/pcap.h"
#include "wire/roce_frame.h"
#include "wire/roce_packet.h"

namespace {

using namespace isthmus::wire;

const char* name_of(IcrcMatch match) {
  switch (match) {
    case IcrcMatch::kMismatch:
      return "mismatch";
    case IcrcMatch::kExact:
      return "exact";
    case IcrcMatch::kRecovered:
      return "recovered";
  }
  return "unknown";
}

void print(std::span<const std::byte> data, IcrcVerifier& verifier) {
  const auto frame = decode_roce_frame(data);
  const auto packet = frame ? decode_roce(frame->udp_payload) : std::unexpected(frame.error());
  if (!packet) {
    std::printf("%s\n", to_string(packet.error()));
    return;
  }
  const std::span<const std::byte> covered =
      frame->udp_payload.first(frame->udp_payload.size() - kIcrcBytes);
  const IcrcVerdict verdict = verifier.verify(frame->flow, frame->udp_payload);
  const Bth& bth = packet->bth;
  std::printf("%u %d %u %u %d %u %zu ", static_cast<unsigned>(bth.opcode), bth.solicited,
              bth.pad_count, bth.dest_qpn, bth.ack_request, bth.psn, packet->payload.size());
  if (frame->dont_fragment) {
    std::printf("%u", icrc(frame->flow, covered, frame->ip_id));
  } else {
    std::printf("-");
  }
  std::printf(" %s %u\n", name_of(verdict.match), verdict.ip_id);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FILE.pcap\n", argv[0]);
    return 2;
  }
  std::ifstream stream(argv[1], std::ios::binary);
  const std::vector<char> file(std::istreambuf_iterator<char>(stream), {});
  auto reader = PcapReader::create(std::as_bytes(std::span(file)));
  if (!reader) {
    std::fprintf(stderr, "%s: %s\n", argv[1], to_string(reader.error()));
    return 1;
  }
  IcrcVerifier verifier;
  auto packet = reader->next();
  for (; packet && *packet; packet = reader->next()) print((*packet)->data, verifier);
  return packet ? 0 : 1;
}
