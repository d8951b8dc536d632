// Goal: a lab's hosts, commands and state are what the documentation says, and nothing of another
// lab, or of no lab, is ever taken for part of it.
// Method: plans for both kinds, and names near the ones that count.
#include "apps/isthmus_lab_plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace isthmus::apps {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;

LabPlan plan(LabKind kind, LabOptions options = {}) {
  return plan_lab(options, kind, "/tmp/x/lab").value();
}

TEST(LabPlan, NamespacesAreHostsOnABridge) {
  const LabPlan made = plan(LabKind::kNamespaces, {.hosts = 3});
  ASSERT_EQ(made.hosts.size(), 3u);
  EXPECT_EQ(made.hosts[2], (LabHost{.name = "h3",
                                    .address = "10.77.0.3",
                                    .address6 = "fd77::3",
                                    .network_namespace = "isthmus-lab-h3",
                                    .socket = "/tmp/x/lab/h3.sock"}));
  EXPECT_THAT(made.network, Contains(Command{"ip", "netns", "add", "isthmus-lab-h3"}));
  for (const Command& command : made.network) {
    // Nothing outside the lab's namespaces changes.
    EXPECT_THAT(command_text(command), HasSubstr("isthmus-lab-"));
  }
  const Command daemon = daemon_command(made, made.hosts[0], "/bin/isthmusd");
  EXPECT_EQ(command_text(daemon),
            "ip netns exec isthmus-lab-h1 /bin/isthmusd --socket /tmp/x/lab/h1.sock --label h1 "
            "--cluster-key /tmp/x/lab/cluster.key --detach");
}

TEST(LabPlan, LoopbackHostsNeedNoCommand) {
  const LabPlan made = plan(LabKind::kLoopback, {.hosts = 2, .network = 5});
  EXPECT_TRUE(made.network.empty());
  EXPECT_EQ(made.hosts[1].address, "127.5.0.2");
  EXPECT_THAT(daemon_command(made, made.hosts[1], "isthmusd"), Contains("127.5.0.2"));
}

TEST(LabPlan, NamesThatCannotBeNamespacesAreRefused) {
  for (const char* name : {"", "a b", "../x", "A", "a-b", "abcdefghijklmnopqrstuvwxyz1234567"}) {
    EXPECT_FALSE(plan_lab({.name = name}, LabKind::kLoopback, "/tmp/x")) << name;
  }
}

TEST(LabPlan, KnowsItsOwnNamespaces) {
  EXPECT_TRUE(belongs_to_lab("isthmus-lab-h1", "lab"));
  EXPECT_TRUE(belongs_to_lab("isthmus-lab-switch", "lab"));
  EXPECT_TRUE(belongs_to_lab("isthmus-lab-ci-h12", "ci"));
  for (const char* other : {"isthmus-lab-ci-h1", "isthmus-lab-h", "isthmus-lab-h1x", "isthmus-lab-",
                            "h1", "isthmus-lab-ci-switch", "isthmus-lab-host"}) {
    EXPECT_FALSE(belongs_to_lab(other, "lab")) << other;
  }
}

TEST(LabPlan, StateComesBackAsItWas) {
  for (const LabKind kind : {LabKind::kNamespaces, LabKind::kLoopback}) {
    LabPlan made = plan_lab({.hosts = 2}, kind, "/tmp/with space/lab").value();
    EXPECT_EQ(parse_state(state_text(made)).value(), made.hosts);
  }
  EXPECT_FALSE(parse_state("h1 10.0.0.1\n"));
  EXPECT_TRUE(parse_state("").value().empty());
}

TEST(LabPlan, ReplacesAddressesAndNamesUnknownHosts) {
  const LabPlan made = plan(LabKind::kLoopback, {.hosts = 2});
  EXPECT_EQ(with_addresses({"rping", "-a", "@h2", "@h3", "x@h2"}, made.hosts),
            (Command{"rping", "-a", "127.77.0.2", "@h3", "x@h2"}));
  const auto missing = find_host(made.hosts, "h9");
  ASSERT_FALSE(missing);
  EXPECT_THAT(missing.error().message, HasSubstr("it has h1, h2"));
}

TEST(LabPlan, ExecGoesThroughRunUnlessPlain) {
  const LabPlan made = plan(LabKind::kNamespaces);
  LabOptions options{.command = {"ls", "-l"}};
  EXPECT_EQ(command_text(exec_command(made.hosts[0], "/bin/isthmus", options, made.hosts)),
            "ip netns exec isthmus-lab-h1 /bin/isthmus --socket /tmp/x/lab/h1.sock run -- ls -l");
  options.plain = true;
  EXPECT_EQ(command_text(exec_command(made.hosts[0], "/bin/isthmus", options, made.hosts)),
            "ip netns exec isthmus-lab-h1 ls -l");
}

}  // namespace
}  // namespace isthmus::apps
