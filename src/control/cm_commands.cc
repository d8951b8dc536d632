// The commands of programs: checked for being their own, handed to the core, answered.
#include <rdma/rdma_cma.h>

#include <cstring>
#include <utility>

#include "base/assert.h"
#include "base/log.h"
#include "control/cm_service.h"
#include "control/cm_translate.h"
#include "os/clock.h"

namespace isthmus::control {
namespace {

Result<attach::CmPlainReply> plain(const Result<void>& done) {
  if (!done) return std::unexpected(done.error());
  return attach::CmPlainReply{};
}

Result<attach::CmHandleReply> handle_reply(const Result<std::uint32_t>& made) {
  if (!made) return std::unexpected(made.error());
  return attach::CmHandleReply{.handle = *made};
}

wire::PortSpace core_space(attach::CmPortSpace space) {
  return static_cast<wire::PortSpace>(space);  // Both have rdma_port_space's values.
}

}  // namespace

template <class Reply>
void CmService::answer(CmClient& client, const attach::CmRequestHeader& header,
                       Result<Reply> reply) {
  const auto send = [&](auto message) {
    message.header.command = header.command;
    message.header.sequence = header.sequence;
    // A program that does not read its reply has more than one request out: it is on its own.
    (void)os::send_message(client.connection, attach::bytes_of(message), {});
  };
  if (reply) {
    send(*reply);
    return;
  }
  ISTHMUS_LOG(kDebug, "process %d: %s", client.credentials.process_id,
              reply.error().message.c_str());
  attach::CmPlainReply failure;
  failure.header.error = static_cast<std::int32_t>(reply.error().code);
  send(failure);
}

void CmService::execute(CmClient& client, const attach::CmRequest& request,
                        std::vector<os::Fd> fds) {
  std::visit([&](const auto& r) { run(client, r, std::move(fds)); }, request);
}

void CmService::run(CmClient& client, const attach::CmPlainRequest& request,
                    std::vector<os::Fd> fds) {
  const attach::CmRequestHeader& header = request.header;
  const std::uint64_t now_ns = os::now_ns();
  switch (header.command) {
    case attach::CmCommand::kCreateChannel:
      return answer(client, header, handle_reply(create_channel(client, std::move(fds))));
    case attach::CmCommand::kDestroyChannel:
      return answer(client, header, plain(destroy_channel(client, header.id)));
    default:
      break;
  }
  const Result<CmIdRecord*> record = own_id(client, header.id);
  if (!record) return answer<attach::CmPlainReply>(client, header, std::unexpected(record.error()));
  switch (header.command) {
    case attach::CmCommand::kDestroyId:
      return answer(client, header, destroy_id(client, header.id));
    case attach::CmCommand::kDisconnect:
      return answer(client, header, plain(manager_.disconnect(now_ns, header.id)));
    case attach::CmCommand::kEstablish:
      return answer(client, header, plain(manager_.establish(now_ns, header.id)));
    default:
      return answer(client, header, route_reply({}, header.id));
  }
}

Result<CmIdRecord*> CmService::own_id(const CmClient& client, cm::IdHandle id) {
  const auto found = ids_.find(id);
  if (found == ids_.end() || found->second.client != client.id) {
    return fail(ErrorCode::kInvalid, "id %u is none of this program", id);
  }
  return &found->second;
}

Result<CmChannel*> CmService::own_channel(const CmClient& client, std::uint32_t channel) {
  const auto found = channels_.find(channel);
  if (found == channels_.end() || found->second.client != client.id) {
    return fail(ErrorCode::kInvalid, "channel %u is none of this program", channel);
  }
  return &found->second;
}

// A request in the name of somebody else's queue pair would make the peer end that one's
// connection as a stale one. A number that is nobody's harms nobody: programs that measure the
// connection manager alone make some up.
Result<void> CmService::check_queue_pair(const CmClient& client, std::uint32_t qpn) const {
  if (!hooks_.owner_of_qp || qpn == 0) return {};
  const auto owner = hooks_.owner_of_qp(qpn);
  if (!owner ||
      (owner->user_id == client.credentials.user_id && owner->label == client.label)) {
    return {};
  }
  return fail(ErrorCode::kInvalid, "queue pair %u is none of this program", qpn);
}

Result<std::uint32_t> CmService::create_channel(CmClient& client, std::vector<os::Fd> fds) {
  if (fds.size() != 1) return fail(ErrorCode::kInvalid, "create_channel: one descriptor, please");
  if (client.channels.size() >= attach::kCmMaxChannels) {
    return fail(ErrorCode::kNoMemory, "create_channel: %u channels at most",
                attach::kCmMaxChannels);
  }
  const std::uint32_t handle = next_channel_++;
  channels_[handle] = CmChannel{.client = client.id, .socket = std::move(fds.front())};
  client.channels.insert(handle);
  return handle;
}

Result<void> CmService::destroy_channel(CmClient& client, std::uint32_t handle) {
  const CmChannel* channel = ISTHMUS_TRY(own_channel(client, handle));
  if (channel->id_count > 0) return fail(ErrorCode::kBusy, "destroy_channel: it still has ids");
  loop_.cancel(channel->retry);
  channels_.erase(handle);
  client.channels.erase(handle);
  return {};
}

void CmService::handle(CmClient& client, const attach::CmCreateId& request) {
  const auto create = [&]() -> Result<std::uint32_t> {
    ISTHMUS_TRY(own_channel(client, request.channel));
    if (client.ids.size() >= attach::kCmMaxIds) {
      return fail(ErrorCode::kNoMemory, "create_id: %u ids at most", attach::kCmMaxIds);
    }
    const cm::IdHandle id =
        manager_.create_id(client.id, core_space(request.port_space), request.qp_type);
    add_id(client, id, request.channel, request.cookie);
    return id;
  };
  answer(client, request.header, handle_reply(create()));
}

Result<attach::CmCountReply> CmService::destroy_id(CmClient& client, cm::IdHandle id) {
  const CmIdRecord record = *ISTHMUS_TRY(own_id(client, id));
  CmChannel& channel = channels_.at(record.channel);
  // Requests that the program has not seen yet go with their listener.
  std::vector<cm::IdHandle> unseen;
  for (const attach::CmEvent& event : channel.waiting) {
    if (event.listen_id == id) unseen.push_back(event.id);
  }
  discard_waiting(channel, [&](const attach::CmEvent& event) {
    return event.id == id || event.listen_id == id;
  });
  unseen.push_back(id);
  for (const cm::IdHandle gone : unseen) {
    if (!own_id(client, gone)) continue;
    manager_.destroy_id(os::now_ns(), gone);
    --channels_.at(ids_.at(gone).channel).id_count;
    ids_.erase(gone);
    client.ids.erase(gone);
    std::erase_if(memberships_, [&](const auto& m) { return m.second.id == gone; });
  }
  return attach::CmCountReply{.events_delivered = record.events_delivered};
}

Result<attach::CmRouteReply> CmService::route_reply(const Result<void>& done, cm::IdHandle id) {
  if (!done) return std::unexpected(done.error());
  const cm::Id* known = manager_.find(id);
  ISTHMUS_ASSERT(known != nullptr);
  return attach::CmRouteReply{.route = route_of(*known, __builtin_bswap64(options_.node_guid),
                                                options_.settings.packet_life_time_code)};
}

void CmService::handle(CmClient& client, const attach::CmBindAddress& request) {
  const auto bind = [&]() -> Result<void> {
    ISTHMUS_TRY(own_id(client, request.header.id));
    return manager_.bind(request.header.id, ISTHMUS_TRY(core_address(request.address)));
  };
  answer(client, request.header, route_reply(bind(), request.header.id));
}

void CmService::handle(CmClient& client, const attach::CmResolveAddress& request) {
  const auto resolve = [&]() -> Result<void> {
    ISTHMUS_TRY(own_id(client, request.header.id));
    std::optional<cm::SocketAddress> source;
    if (request.source.family != 0) source = ISTHMUS_TRY(core_address(request.source));
    return manager_.resolve_address(request.header.id, source,
                                    ISTHMUS_TRY(core_address(request.destination)));
  };
  answer(client, request.header, route_reply(resolve(), request.header.id));
}

void CmService::handle(CmClient& client, const attach::CmResolveRoute& request) {
  const auto resolve = [&]() -> Result<void> {
    ISTHMUS_TRY(own_id(client, request.header.id));
    return manager_.resolve_route(request.header.id);
  };
  answer(client, request.header, route_reply(resolve(), request.header.id));
}

void CmService::handle(CmClient& client, const attach::CmListen& request) {
  const auto listen = [&]() -> Result<void> {
    ISTHMUS_TRY(own_id(client, request.header.id));
    return manager_.listen(request.header.id, request.backlog);
  };
  answer(client, request.header, route_reply(listen(), request.header.id));
}

void CmService::handle(CmClient& client, const attach::CmConnect& request) {
  const auto connect = [&]() -> Result<void> {
    ISTHMUS_TRY(own_id(client, request.header.id));
    ISTHMUS_TRY_VOID(check_queue_pair(client, request.parameters.qpn));
    return manager_.connect(os::now_ns(), request.header.id, core_parameters(request.parameters),
                            core_private_data(request.private_data));
  };
  answer(client, request.header, plain(connect()));
  pace(client);
}

void CmService::handle(CmClient& client, const attach::CmAccept& request) {
  const auto accept = [&]() -> Result<void> {
    CmIdRecord* record = ISTHMUS_TRY(own_id(client, request.header.id));
    ISTHMUS_TRY_VOID(check_queue_pair(client, request.parameters.qpn));
    record->cookie = request.cookie;
    return manager_.accept(os::now_ns(), request.header.id, core_parameters(request.parameters),
                           core_private_data(request.private_data));
  };
  answer(client, request.header, plain(accept()));
}

void CmService::handle(CmClient& client, const attach::CmReject& request) {
  const auto reject = [&]() -> Result<void> {
    ISTHMUS_TRY(own_id(client, request.header.id));
    return manager_.reject(os::now_ns(), request.header.id,
                           static_cast<wire::RejectReason>(request.reason),
                           core_private_data(request.private_data));
  };
  answer(client, request.header, plain(reject()));
}

void CmService::handle(CmClient& client, const attach::CmNotify& request) {
  const auto notify = [&]() -> Result<void> {
    ISTHMUS_TRY(own_id(client, request.header.id));
    // Of all asynchronous events this one alone concerns the connection manager.
    if (request.event != IBV_EVENT_COMM_EST) return {};
    return manager_.data_arrived(os::now_ns(), request.header.id);
  };
  answer(client, request.header, plain(notify()));
}

void CmService::handle(CmClient& client, const attach::CmInitQpAttributes& request) {
  const auto attributes = [&]() -> Result<attach::CmQpAttributesReply> {
    ISTHMUS_TRY(own_id(client, request.header.id));
    return attributes_reply(
        ISTHMUS_TRY(manager_.qp_attributes(request.header.id, request.qp_state)),
        request.qp_state);
  };
  answer(client, request.header, attributes());
}

void CmService::handle(CmClient& client, const attach::CmSetOption& request) {
  const auto set = [&]() -> Result<void> {
    ISTHMUS_TRY(own_id(client, request.header.id));
    return set_option(request);
  };
  answer(client, request.header, plain(set()));
}

Result<void> CmService::set_option(const attach::CmSetOption& request) {
  const cm::IdHandle id = request.header.id;
  const std::span value = std::span(request.value).first(request.value_bytes);
  // There is one path to a RoCE host; whichever a program brings is the same.
  if (request.level == RDMA_OPTION_IB && request.name == RDMA_OPTION_IB_PATH) return {};
  const auto flag = [&]() -> Result<bool> {
    int number = 0;
    if (value.size() != sizeof number) return fail(ErrorCode::kInvalid, "option: not an int");
    std::memcpy(&number, value.data(), sizeof number);
    return number != 0;
  };
  if (request.level != RDMA_OPTION_ID) {
    return fail(ErrorCode::kUnsupported, "option: level %u is unknown", request.level);
  }
  switch (request.name) {
    case RDMA_OPTION_ID_REUSEADDR:
      return manager_.set_reuse_address(id, ISTHMUS_TRY(flag()));
    case RDMA_OPTION_ID_AFONLY:
      return manager_.set_family_only(id, ISTHMUS_TRY(flag()));
    case RDMA_OPTION_ID_TOS:
      if (value.size() != 1) return fail(ErrorCode::kInvalid, "TOS: one byte");
      return manager_.set_type_of_service(id, value[0]);
    case RDMA_OPTION_ID_ACK_TIMEOUT:
      if (value.size() != 1) return fail(ErrorCode::kInvalid, "ACK_TIMEOUT: one byte");
      return manager_.set_ack_timeout(id, value[0]);
    default:
      return fail(ErrorCode::kUnsupported, "option %u is unknown", request.name);
  }
}

void CmService::handle(CmClient& client, const attach::CmJoinMulticast& request) {
  const cm::IdHandle id = request.header.id;
  const auto join = [&]() -> Result<std::uint32_t> {
    ISTHMUS_TRY(own_id(client, id));
    const cm::SocketAddress group = ISTHMUS_TRY(core_address(request.group));
    const std::uint32_t multicast =
        ISTHMUS_TRY(manager_.join_multicast(id, group, request.join_flags != 0));
    memberships_[multicast] = CmMembership{.id = id, .cookie = request.cookie};
    return multicast;
  };
  answer(client, request.header, handle_reply(join()));
}

void CmService::handle(CmClient& client, const attach::CmLeaveMulticast& request) {
  const auto leave = [&]() -> Result<attach::CmCountReply> {
    const CmIdRecord* record = ISTHMUS_TRY(own_id(client, request.header.id));
    ISTHMUS_TRY_VOID(manager_.leave_multicast(request.header.id, request.multicast));
    discard_waiting(channels_.at(record->channel), [&](const attach::CmEvent& event) {
      return event.multicast == request.multicast;
    });
    const auto membership = memberships_.extract(request.multicast);
    ISTHMUS_ASSERT(!membership.empty());
    return attach::CmCountReply{.events_delivered = membership.mapped().events_delivered};
  };
  answer(client, request.header, leave());
}

void CmService::handle(CmClient& client, const attach::CmMigrateId& request) {
  const cm::IdHandle id = request.header.id;
  const auto migrate = [&]() -> Result<attach::CmCountReply> {
    CmIdRecord* record = ISTHMUS_TRY(own_id(client, id));
    CmChannel* to = ISTHMUS_TRY(own_channel(client, request.channel));
    CmChannel& from = channels_.at(record->channel);
    const attach::CmCountReply reply{.events_delivered = record->events_delivered};
    if (&from == to) return reply;
    --from.id_count;
    ++to->id_count;
    record->channel = request.channel;
    record->events_delivered = 0;
    const auto of_id = [&](const attach::CmEvent& event) {
      return event.listen_id != 0 ? event.listen_id == id : event.id == id;
    };
    std::vector<attach::CmEvent> moved;
    std::ranges::copy_if(from.waiting, std::back_inserter(moved), of_id);
    discard_waiting(from, of_id);
    for (const attach::CmEvent& event : moved) write_event(request.channel, event);
    return reply;
  };
  answer(client, request.header, migrate());
}

void CmService::handle(CmClient& client, const attach::CmRestoreId& request) {
  const auto restore = [&]() -> Result<std::uint32_t> {
    ISTHMUS_TRY(own_channel(client, request.channel));
    ISTHMUS_TRY_VOID(check_queue_pair(client, request.local_qpn));
    const cm::SocketAddress source = ISTHMUS_TRY(core_address(request.route.source));
    const cm::SocketAddress destination = ISTHMUS_TRY(core_address(request.route.destination));
    if (client.ids.size() >= attach::kCmMaxIds || request.local_communication_id == 0) {
      return fail(ErrorCode::kInvalid, "restore_id: nothing to restore, or too many ids");
    }
    cm::Exchange exchange;
    exchange.id = static_cast<cm::ExchangeId>(request.local_communication_id);
    exchange.remote_id = request.remote_communication_id;
    exchange.role = request.active != 0 ? cm::Role::kActive : cm::Role::kPassive;
    exchange.local = source.ip;
    exchange.remote = destination.ip;
    exchange.values.local_qpn = request.local_qpn;
    exchange.values.remote_qpn = request.remote_qpn;
    const cm::IdHandle id = ISTHMUS_TRY(manager_.restore(
        client.id, core_space(request.port_space), source, destination, exchange));
    add_id(client, id, request.channel, request.cookie);
    return id;
  };
  answer(client, request.header, handle_reply(restore()));
}

}  // namespace isthmus::control
