// Goal: the two gates ask the document the right question: who asked whom, which port, which mark,
// and give back what the peer may do to us.
// Method: documents with one rule each, and every point of the gate.
#include "control/cm_policy.h"

#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include "cluster/policy_toml.h"
#include "cm/testing.h"

namespace isthmus::control {
namespace {

using cm::GatePoint;
using cm::ip;

constexpr unsigned kRead = IBV_ACCESS_REMOTE_READ;
constexpr unsigned kWrite = IBV_ACCESS_REMOTE_WRITE;

HostPolicy policy(std::string_view text) {
  return HostPolicy{cluster::parse_policy(text, "test").value()};
}

std::optional<std::string> label_of(cm::ClientId client) {
  return client == 1 ? std::optional<std::string>("web") : std::optional<std::string>("db");
}

cm::GateQuestion question(GatePoint point) {
  return {.point = point,
          .client = 1,
          .local = ip("10.0.0.1"),
          .remote = ip("10.0.0.2"),
          .port = std::uint16_t{7471}};
}

TEST(CmGate, TellsWhoAskedWhom) {
  // The asker may read, the asked may write back.
  const HostPolicy host = policy("default = \"deny\"\n[[rule]]\nfrom = { gid = \"10.0.0.1/32\" }\n"
                                 "allow = [\"connect\", \"read\"]\n"
                                 "allow_back = [\"write\"]\n");
  CmGate gate{host, label_of};
  for (const GatePoint point : {GatePoint::kRequestOut, GatePoint::kReplyIn}) {
    const cm::GateAnswer answer = gate.judge(question(point));
    EXPECT_TRUE(answer.allowed);
    EXPECT_EQ(answer.peer_access, kWrite);
  }
  for (const GatePoint point : {GatePoint::kRequestIn, GatePoint::kReplyOut}) {
    EXPECT_FALSE(gate.judge(question(point)).allowed);
    cm::GateQuestion turned = question(point);
    std::swap(turned.local, turned.remote);
    EXPECT_EQ(gate.judge(turned).peer_access, kRead);
  }
}

TEST(CmGate, KnowsLabelsOfThisHost) {
  const HostPolicy host = policy("default = \"deny\"\n[[rule]]\nname = \"web to db\"\n"
                                 "from.label = \"web\"\nto.label = \"db\"\nallow = \"connect\"\n");
  CmGate gate{host, label_of};
  EXPECT_FALSE(gate.judge(question(GatePoint::kRequestOut)).allowed);
  cm::GateQuestion local = question(GatePoint::kRequestOut);
  local.neighbour = 2;
  EXPECT_TRUE(gate.judge(local).allowed);
  EXPECT_EQ(gate.judge(local).rule, "web to db");
  local.point = GatePoint::kRequestIn;  // Now db asks web.
  EXPECT_FALSE(gate.judge(local).allowed);
}

TEST(CmGate, AsksForTheMarkOnArrival) {
  const HostPolicy host = policy("require_mark = [\"10.0.0.0/8\"]\n");
  CmGate gate{host, label_of};
  cm::GateQuestion q = question(GatePoint::kRequestIn);
  EXPECT_FALSE(gate.judge(q).allowed);
  q.origin = cm::Origin::kMarked;
  EXPECT_TRUE(gate.judge(q).allowed);
  q.origin = cm::Origin::kLoopback;
  EXPECT_TRUE(gate.judge(q).allowed);
}

TEST(CmAdmissionGate, TakesTheGrantBeforeTheDocument) {
  const HostPolicy host = policy("default = \"deny\"\n");
  std::optional<cm::ConnectionGrant> grant;
  CmAdmissionGate gate{host, [&](const AdmissionQuestion&) { return grant; }};
  const AdmissionQuestion question{.label = "web",
                                   .qpn = 1,
                                   .dest_qpn = 2,
                                   .local = ip("10.0.0.1"),
                                   .remote = ip("10.0.0.2"),
                                   .transport = IBV_QPT_RC};
  EXPECT_FALSE(gate.judge(question).allowed);
  grant = cm::ConnectionGrant{.id = 1, .client = 1, .peer_access = kRead};
  const AdmissionAnswer answer = gate.judge(question);
  EXPECT_TRUE(answer.allowed);
  EXPECT_EQ(answer.peer_access, kRead);
}

TEST(CmAdmissionGate, JudgesWhatCameWithoutTheConnectionManager) {
  const HostPolicy host = policy("default = \"deny\"\n[[rule]]\nto.gid = \"10.0.0.2/32\"\n"
                                 "transport = \"rc\"\nallow = [\"connect\", \"write\"]\n");
  CmAdmissionGate gate{host, [](const AdmissionQuestion&) { return std::nullopt; }};
  AdmissionQuestion question{.label = "web",
                             .local = ip("10.0.0.1"),
                             .remote = ip("10.0.0.2"),
                             .transport = IBV_QPT_RC};
  EXPECT_EQ(gate.judge(question).peer_access, kWrite);
  question.transport = IBV_QPT_UC;
  EXPECT_FALSE(gate.judge(question).allowed);
}

}  // namespace
}  // namespace isthmus::control
