// Goal: what we send is what Linux sends: the connection messages of rping between two soft-RoCE
// hosts, made again by our core, byte for byte.
// Method: replay tests/golden/rxe-rping.pcap. The core stands in for one side, is given the random
// numbers that side had drawn, gets the other side's messages and must produce the recorded ones.
#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <deque>
#include <fstream>
#include <iterator>

#include "cm/testing.h"
#include "wire/pcap.h"
#include "wire/roce_frame.h"
#include "wire/roce_packet.h"

namespace isthmus::cm {
namespace {

struct Recorded {
  wire::IpAddress source;
  Mad mad;
  wire::CmMessage message;
};

std::vector<Recorded> recorded_messages() {
  std::ifstream stream(ISTHMUS_SOURCE_DIR "/tests/golden/rxe-rping.pcap", std::ios::binary);
  const std::vector<char> file{std::istreambuf_iterator<char>(stream), {}};
  auto reader = wire::PcapReader::create(std::as_bytes(std::span(file)));
  EXPECT_TRUE(reader.has_value());
  std::vector<Recorded> messages;
  for (auto packet = reader->next(); packet && *packet; packet = reader->next()) {
    const auto frame = wire::decode_roce_frame((*packet)->data);
    if (!frame) continue;
    const auto roce = wire::decode_roce(frame->udp_payload);
    if (!roce || roce->bth.dest_qpn != wire::kGsiQpn) continue;
    Recorded& one = messages.emplace_back();
    one.source = frame->flow.source;
    std::ranges::copy(roce->payload, one.mad.begin());
    one.message = *wire::decode_cm(roce->payload);
  }
  return messages;
}

template <class T>
const Recorded& find(const std::vector<Recorded>& messages, const wire::IpAddress& source) {
  for (const Recorded& one : messages) {
    if (one.source == source && std::holds_alternative<T>(one.message)) return one;
  }
  ADD_FAILURE() << "the trace has no such message";
  return messages.front();
}

// A host that draws the numbers it is told to draw.
struct ScriptedHost {
  ScriptedHost(std::string_view address, std::uint64_t node_guid)
      : addresses({ip(address)}),
        manager({.packet_life_time_code = 18}, [this] { return draw(); }, node_guid, addresses,
                gate) {}
  std::uint64_t draw() {
    if (script.empty()) return 0x1234;
    const std::uint64_t next = script.front();
    script.pop_front();
    return next;
  }
  FixedAddresses addresses;
  FixedGate gate;
  std::deque<std::uint64_t> script;
  Manager manager;
};

class CmGolden : public testing::Test {
 protected:
  const std::vector<Recorded> trace = recorded_messages();
  const wire::IpAddress client = ip("10.98.0.12");
  const wire::IpAddress server = ip("10.98.0.11");
  const wire::CmReq req = std::get<wire::CmReq>(find<wire::CmReq>(trace, client).message);
  const wire::CmRep rep = std::get<wire::CmRep>(find<wire::CmRep>(trace, server).message);
};

TEST_F(CmGolden, TheServersSide) {
  ScriptedHost host("10.98.0.11", rep.local_ca_guid);
  const IdHandle listener = host.manager.create_id(1, wire::PortSpace::kTcp, 0);
  const auto service = wire::parse_rdma_cm_service_id(req.service_id);
  ASSERT_TRUE(service);
  ASSERT_TRUE(host.manager.bind(listener, at("0.0.0.0", service->port)));
  ASSERT_TRUE(host.manager.listen(listener, 3));
  host.script = {rep.local_comm_id, rep.starting_psn};
  const auto receive = [&](const Recorded& one) {
    host.manager.on_mad(0, {.source = one.source, .destination = server, .mad = one.mad});
  };

  receive(find<wire::CmReq>(trace, client));
  const std::vector<Event> events = host.manager.take_events();
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].type, EventType::kConnectRequest);
  EXPECT_EQ(events[0].parameters.qpn, req.local_qpn);
  EXPECT_EQ(host.manager.find(events[0].id)->destination.ip, client);
  ASSERT_TRUE(host.manager.accept(0, events[0].id,
                                  {.qpn = rep.local_qpn,
                                   .responder_resources = rep.responder_resources,
                                   .initiator_depth = rep.initiator_depth,
                                   .rnr_retry_count = rep.rnr_retry_count},
                                  {}));
  auto sent = host.manager.take_outgoing();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].mad, find<wire::CmRep>(trace, server).mad);

  const auto attributes = host.manager.qp_attributes(events[0].id, IBV_QPS_RTS);
  ASSERT_TRUE(attributes);
  EXPECT_EQ(attributes->values.sq_psn, req.starting_psn);
  EXPECT_EQ(attributes->values.rq_psn, rep.starting_psn);

  receive(find<wire::CmRtu>(trace, client));
  EXPECT_EQ(host.manager.take_events().back().type, EventType::kEstablished);
  receive(find<wire::CmDreq>(trace, client));
  EXPECT_EQ(host.manager.take_events().back().type, EventType::kDisconnected);
  sent = host.manager.take_outgoing();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].mad, find<wire::CmDrep>(trace, server).mad);
}

TEST_F(CmGolden, TheClientsSide) {
  ScriptedHost host("10.98.0.12", req.local_ca_guid);
  const auto header = wire::decode_rdma_cm_header(req.private_data);
  ASSERT_TRUE(header);
  const std::uint64_t req_transaction =
      wire::decode_mad_header(find<wire::CmReq>(trace, client).mad)->transaction_id;
  const std::uint64_t dreq_transaction =
      wire::decode_mad_header(find<wire::CmDreq>(trace, client).mad)->transaction_id;
  const IdHandle id = host.manager.create_id(1, wire::PortSpace::kTcp, 0);
  ASSERT_TRUE(host.manager.bind(id, at("10.98.0.12", header->source_port)));
  const std::uint16_t port = wire::parse_rdma_cm_service_id(req.service_id)->port;
  ASSERT_TRUE(host.manager.resolve_address(id, std::nullopt, at("10.98.0.11", port)));
  ASSERT_TRUE(host.manager.resolve_route(id));
  host.script = {req.local_comm_id, req.starting_psn, req_transaction, dreq_transaction};
  ASSERT_TRUE(host.manager.connect(0, id,
                                   {.qpn = req.local_qpn,
                                    .responder_resources = req.responder_resources,
                                    .initiator_depth = req.initiator_depth,
                                    .retry_count = req.retry_count,
                                    .rnr_retry_count = req.rnr_retry_count},
                                   {}));
  auto sent = host.manager.take_outgoing();
  ASSERT_EQ(sent.size(), 1u);
  // Linux draws a flow label, leaves bits after it and has another idea of the rate; the rest is
  // the same.
  wire::CmReq ours = std::get<wire::CmReq>(*wire::decode_cm(sent[0].mad));
  ours.primary.flow_label = req.primary.flow_label;
  ours.primary.reserved = req.primary.reserved;
  ours.primary.packet_rate = req.primary.packet_rate;
  Mad same;
  wire::encode_cm(ours, req_transaction, same);
  EXPECT_EQ(same, find<wire::CmReq>(trace, client).mad);

  const auto receive = [&](const Recorded& one) {
    host.manager.on_mad(0, {.source = one.source, .destination = client, .mad = one.mad});
  };
  receive(find<wire::CmRep>(trace, server));
  ASSERT_TRUE(host.manager.establish(0, id));
  sent = host.manager.take_outgoing();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].mad, find<wire::CmRtu>(trace, client).mad);
  EXPECT_EQ(host.manager.qp_attributes(id, IBV_QPS_RTS)->values.ack_timeout, 19);

  ASSERT_TRUE(host.manager.disconnect(0, id));
  sent = host.manager.take_outgoing();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].mad, find<wire::CmDreq>(trace, client).mad);
}

}  // namespace
}  // namespace isthmus::cm
