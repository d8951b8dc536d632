// The connection manager's core against a peer that sends anything: no assertion trips, no table
// grows past its bound, no message gets more than one answer, and when all is destroyed and time
// has passed nothing is left.
//
// The input is a list of steps: one byte for what happens, then what it needs. MADs are given by
// the few fields that matter, so that a fuzzer finds its way past the decoder.
#include <cstdlib>
#include <cstring>

#include "cm/testing.h"

using namespace isthmus;
using namespace isthmus::cm;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

class Input {
 public:
  explicit Input(std::span<const std::byte> bytes) : bytes_(bytes) {}
  bool done() const { return bytes_.empty(); }
  template <class T>
  T take() {
    T value{};
    const std::size_t count = std::min(sizeof value, bytes_.size());
    std::memcpy(&value, bytes_.data(), count);
    bytes_ = bytes_.subspan(count);
    return value;
  }

 private:
  std::span<const std::byte> bytes_;
};

constexpr std::uint16_t kPort = 7471;

struct Fixture {
  Fixture() {
    Settings settings;
    settings.max_exchanges = 16;
    settings.max_timewait = 16;
    host = std::make_unique<FakeHost>(std::vector{ip("10.0.0.1")}, 7, settings);
    for (const auto space : {wire::PortSpace::kTcp, wire::PortSpace::kUdp}) {
      const IdHandle id = host->manager.create_id(1, space, 0);
      require(host->manager.bind(id, at("0.0.0.0", kPort)).has_value());
      require(host->manager.listen(id, 8).has_value());
      ids.push_back(id);
    }
  }
  std::unique_ptr<FakeHost> host;
  std::vector<IdHandle> ids;
  std::vector<std::uint32_t> known = {0, 1};  // Communication ids that were seen on the wire.
  std::uint64_t now = kSecond;

  void collect() {
    for (const OutgoingMad& out : host->manager.take_outgoing()) {
      const std::uint32_t id = load(out.mad.data() + wire::kMadHeaderBytes);
      if (known.size() < 64) known.push_back(id);
    }
    for (const Event& event : host->manager.take_events()) {
      if (event.type == EventType::kConnectRequest) ids.push_back(event.id);
    }
  }
  static std::uint32_t load(const std::byte* from) {
    std::uint32_t value;
    std::memcpy(&value, from, sizeof value);
    return __builtin_bswap32(value);
  }
  std::uint32_t some_id(Input& in) { return known[in.take<std::uint8_t>() % known.size()]; }
};

wire::CmMessage some_message(Fixture& f, Input& in, const wire::IpAddress& peer) {
  const std::uint32_t local = in.take<std::uint8_t>();
  const std::uint32_t remote = f.some_id(in);
  const std::uint32_t qpn = in.take<std::uint8_t>();
  switch (in.take<std::uint8_t>() % 9) {
    case 0: {
      wire::CmReq req{.local_comm_id = local,
                      .service_id = wire::rdma_cm_service_id(wire::PortSpace::kTcp, kPort),
                      .local_qpn = qpn,
                      .path_mtu = 3,
                      .primary = {.local_gid = peer, .remote_gid = ip("10.0.0.1")}};
      wire::encode(wire::RdmaCmHeader{.source = peer, .destination = ip("10.0.0.1")},
                   req.private_data.data());
      return req;
    }
    case 1:
      return wire::CmRep{.local_comm_id = local, .remote_comm_id = remote, .local_qpn = qpn};
    case 2:
      return wire::CmRtu{local, remote, {}};
    case 3:
      return wire::CmDreq{local, remote, qpn, {}};
    case 4:
      return wire::CmDrep{local, remote, {}};
    case 5:
      return wire::CmRej{.local_comm_id = local,
                         .remote_comm_id = remote,
                         .reason = static_cast<wire::RejectReason>(in.take<std::uint8_t>())};
    case 6:
      return wire::CmMra{.local_comm_id = local,
                         .remote_comm_id = remote,
                         .message_mraed = static_cast<wire::MraMessage>(qpn % 3),
                         .service_timeout = static_cast<std::uint8_t>(qpn & 31)};
    case 7: {
      wire::CmSidrReq req{
          .request_id = local,
          .service_id = wire::rdma_cm_service_id(wire::PortSpace::kUdp, kPort)};
      wire::encode(wire::RdmaCmHeader{.source = peer, .destination = ip("10.0.0.1")},
                   req.private_data.data());
      return req;
    }
    default:
      return wire::CmSidrRep{.request_id = remote, .qpn = qpn};
  }
}

void receive(Fixture& f, Input& in) {
  const wire::IpAddress peer = ip(in.take<std::uint8_t>() % 4 ? "10.0.0.2" : "10.0.0.3");
  Mad mad;
  if (in.take<std::uint8_t>() % 8 == 0) {
    for (std::byte& byte : mad) byte = in.take<std::byte>();
  } else {
    wire::encode_cm(some_message(f, in, peer), in.take<std::uint8_t>(), mad);
  }
  f.host->manager.on_mad(f.now, {.source = peer, .destination = ip("10.0.0.1"), .mad = mad});
  // A stale connection costs a DREQ beside the answer.
  const auto out = f.host->manager.take_outgoing();
  require(out.size() <= 2);
  for (const OutgoingMad& one : out) {
    if (f.known.size() < 64) f.known.push_back(Fixture::load(one.mad.data() + 24));
  }
}

void command(Fixture& f, Input& in) {
  Manager& m = f.host->manager;
  const IdHandle id = f.ids[in.take<std::uint8_t>() % f.ids.size()];
  const ConnectionParameters parameters{.qpn = in.take<std::uint8_t>()};
  switch (in.take<std::uint8_t>() % 9) {
    case 0: (void)m.accept(f.now, id, parameters, {}); break;
    case 1: (void)m.reject(f.now, id, wire::RejectReason::kConsumerReject, {}); break;
    case 2: (void)m.establish(f.now, id); break;
    case 3: (void)m.disconnect(f.now, id); break;
    case 4: (void)m.data_arrived(f.now, id); break;
    case 5: m.destroy_id(f.now, id); break;
    case 6: (void)m.qp_attributes(id, in.take<std::uint8_t>() % 5); break;
    case 7: (void)m.reevaluate(f.now); break;
    default: {
      const auto space = parameters.qpn % 2 ? wire::PortSpace::kTcp : wire::PortSpace::kUdp;
      const IdHandle made = m.create_id(1, space, 0);
      if (f.ids.size() < 64) f.ids.push_back(made);
      (void)m.resolve_address(made, std::nullopt, at("10.0.0.2", kPort));
      (void)m.resolve_route(made);
      (void)m.connect(f.now, made, parameters, {});
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Input in{std::as_bytes(std::span{data, size})};
  Fixture f;
  for (int steps = 0; steps < 400 && !in.done(); ++steps) {
    switch (in.take<std::uint8_t>() % 4) {
      case 0:
      case 1: receive(f, in); break;
      case 2: command(f, in); break;
      default:
        f.now += in.take<std::uint8_t>() * 50 * kMillisecond;
        f.host->manager.on_timer(f.now);
    }
    f.collect();
    require(f.host->manager.connection_count() <= 16);
  }
  for (const IdHandle id : f.ids) f.host->manager.destroy_id(f.now, id);
  std::vector<IdHandle> rest;
  f.host->manager.for_each([&](const Id& id, const Exchange*) { rest.push_back(id.handle); });
  for (const IdHandle id : rest) f.host->manager.destroy_id(f.now, id);
  for (int i = 0; i < 1000 && f.host->manager.next_deadline(); ++i) {
    f.now = std::max(f.now, *f.host->manager.next_deadline());
    f.host->manager.on_timer(f.now);
  }
  require(f.host->manager.connection_count() == 0 && !f.host->manager.next_deadline());
  return 0;
}
