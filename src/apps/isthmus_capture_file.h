// Captured packets as pcapng and as lines of text.
//
// The file has two interfaces of link type "raw IP": one for the RoCE channel, one for the memory
// channel, whose packets never were on a wire and carry a comment that says so. The IP and UDP
// headers are made here as the kernel makes them for our sockets, so that the ICRC is right.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "control/grpc/report.h"

namespace isthmus::apps {

// The blocks a file begins with.
std::vector<std::byte> capture_preamble();
// The block of one packet.
std::vector<std::byte> capture_block(const control::PacketReport& packet);

// "12:00:00.123456789 out roce 10.0.0.1 > 10.0.0.2 RC SEND_ONLY qp 0x4001 psn 17 1024 bytes".
std::string packet_line(const control::PacketReport& packet);

}  // namespace isthmus::apps
