// Goal: the command line means what the help says; likely mistakes get the message that helps;
// tables, rates and findings say what the reports say.
// Method: words in, options or messages out; fixed reports and hosts in, text out.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "apps/isthmus_command_line.h"
#include "apps/isthmus_doctor_findings.h"
#include "apps/isthmus_generate.h"
#include "apps/isthmus_json.h"
#include "apps/isthmus_status_text.h"
#include "apps/isthmus_table.h"
#include "apps/isthmusd_options.h"
#include "os/text_file.h"

namespace isthmus::apps {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

// --- command line --------------------------------------------------------------------------------

TEST(CommandLine, HelpIsPrintedForEveryCommand) {
  const auto visit = [](const auto& self, const CommandDescription& command,
                        std::vector<std::string> words) -> void {
    if (command.name != "isthmus") words.push_back(command.name);
    auto asked = words;
    asked.push_back("--help");
    const ParsedCommand parsed = parse_command_line(asked);
    EXPECT_EQ(parsed.exit_status, kExitDone) << parsed.output;
    EXPECT_FALSE(parsed.command);
    EXPECT_THAT(parsed.output, HasSubstr(command.summary));
    // Nobody learns a command without an example.
    EXPECT_THAT(parsed.output, HasSubstr("Examples:\n  isthmus")) << command.name;
    for (const auto& child : command.commands) self(self, child, words);
  };
  visit(visit, describe_command_line(), {});
}

TEST(CommandLine, LikelyMistakesGetAHelpfulMessage) {
  const auto message = [](std::vector<std::string> words) {
    const ParsedCommand parsed = parse_command_line(std::move(words));
    EXPECT_EQ(parsed.exit_status, kExitUsage);
    EXPECT_FALSE(parsed.command);
    return parsed.output;
  };
  EXPECT_THAT(message({"statsu"}), HasSubstr("did you mean 'status'?"));
  EXPECT_THAT(message({"--socket", "x", "caputre"}), HasSubstr("did you mean 'capture'?"));
  EXPECT_THAT(message({"frobnicate"}), HasSubstr("see isthmus --help"));
  EXPECT_THAT(message({"run"}), HasSubstr("needs a program to run"));
  EXPECT_THAT(message({"status", "--", "ls"}), HasSubstr("runs no program"));
  EXPECT_THAT(message({"status", "--bogus"}), HasSubstr("See isthmus status --help"));
  EXPECT_THAT(message({"channel", "pigeon", "all"}), HasSubstr("pigeon"));
  EXPECT_THAT(message({"lab", "up", "--hosts", "0"}), HasSubstr("--hosts"));
  EXPECT_THAT(message({}), HasSubstr("Commands:"));
}

TEST(CommandLine, BadQueuePairNumbersAreRefusedBeforeAnythingIsDone) {
  for (const char* number : {"0", "x", "0x1000000", "12z", "-1"}) {
    const ParsedCommand parsed = parse_command_line({"channel", "roce", number});
    if (!parsed.command) continue;  // "-1" looks like an option.
    const CommandResult result = parsed.command();
    ASSERT_FALSE(result) << number;
    EXPECT_EQ(result.error().code, ErrorCode::kInvalid);
  }
}

// --- generated texts -----------------------------------------------------------------------------

TEST(Generate, EveryCommandHasAPageAndEveryOptionIsInIt) {
  const CommandDescription root = describe_command_line();
  const auto pages = man_pages(root, ManSection::kCommands);
  const auto page = std::ranges::find(pages, "isthmus-lab-up.1", &ManPage::name);
  ASSERT_NE(page, pages.end());
  for (const char* word : {"\\-\\-hosts COUNT", "\\-\\-loopback", ".SH EXAMPLES", "isthmus (1)"}) {
    EXPECT_THAT(page->text, HasSubstr(word));
  }
  EXPECT_THAT(pages.front().text, HasSubstr(".SH EXIT STATUS"));
  for (const auto& each : pages) EXPECT_THAT(each.text, Not(HasSubstr("_generate")));
}

TEST(Generate, CompletionKnowsCommandsChoicesAndFiles) {
  const CommandDescription root = describe_command_line();
  const std::string bash = bash_completion(root);
  EXPECT_THAT(bash, HasSubstr("compgen -W 'run status top doctor policy capture channel lab"));
  EXPECT_THAT(bash, HasSubstr("--channel) COMPREPLY=($(compgen -W 'auto roce'"));
  EXPECT_THAT(bash, HasSubstr("-w | --write) compopt -o filenames"));
  EXPECT_THAT(zsh_completion(root), HasSubstr("'1:KIND:(roce memory)'"));
  EXPECT_THAT(markdown({root}), HasSubstr("## isthmus policy check"));
}

TEST(Generate, TheCommittedListOfCommandsIsThatOfThisProgram) {
  const auto committed = os::read_text_file(ISTHMUS_SOURCE_DIR "/docs/commands.md");
  ASSERT_TRUE(committed) << committed.error().message;
  EXPECT_EQ(*committed, markdown({describe_command_line(), describe_daemon_line()}))
      << "run: isthmus _generate markdown >docs/commands.md";
}

// --- tables --------------------------------------------------------------------------------------

TEST(Table, AlignsAndKeepsTheTerminalSafe) {
  Table table{{{"NAME"}, {"COUNT", Table::Align::kRight}}};
  table.add({"a", "1"});
  table.add({"evil\x1b[2J", "1000"});
  EXPECT_EQ(table.text(),
            "NAME      COUNT\n"
            "a             1\n"
            "evil?[2J   1000\n");
}

TEST(Table, ScalesNumbers) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(1023), "1023 B");
  EXPECT_EQ(bytes_text(1536), "1.50 KiB");
  EXPECT_EQ(bytes_text(std::uint64_t{12} << 30), "12.0 GiB");
  EXPECT_EQ(count_text(999), "999");
  EXPECT_EQ(count_text(1'234'567), "1.23M");
  EXPECT_EQ(rate_text(2.5e9), "2.50 GB/s");
  EXPECT_EQ(duration_text(59'999'999'999), "59s");
  EXPECT_EQ(duration_text(3'725'000'000'000), "1h 2m");
}

// --- status --------------------------------------------------------------------------------------

control::StatusReport report_at(std::uint64_t taken_ns, std::uint64_t bytes) {
  return {.label = "host",
          .version = "1",
          .process_id = 9,
          .taken_ns = taken_ns,
          .addresses = {"10.0.0.1"},
          .functions = {{.index = 1,
                         .generation = 5,
                         .process_id = 42,
                         .program = "rping",
                         .label = "client",
                         .queue_pair_count = 2,
                         .traffic = {.bytes_sent = bytes},
                         .queue_pairs = {{.qpn = 0x4001,
                                          .type = "RC",
                                          .state = "RTS",
                                          .remote_gid = "10.0.0.2",
                                          .dest_qpn = 0x8001,
                                          .channel = "roce",
                                          .access = 6,
                                          .traffic = {.bytes_sent = bytes}}}},
                        {.index = 2,
                         .generation = 6,
                         .process_id = 42,
                         .program = "rping",
                         .label = "client",
                         .queue_pair_count = 1}}};
}

TEST(Status, AddsUpTheFunctionsOfAProcessAndGivesRates) {
  const auto before = report_at(1'000'000'000, 100);
  const auto now = report_at(3'000'000'000, 2'000'100);
  const auto instances = summarize(now, &before);
  ASSERT_EQ(instances.size(), 1u);
  EXPECT_EQ(instances[0].functions, 2u);
  EXPECT_EQ(instances[0].queue_pairs, 3u);
  EXPECT_DOUBLE_EQ(instances[0].rate.bytes_sent, 1e6);
  EXPECT_THAT(queue_pairs_text(now, &before), HasSubstr("1.00 MB/s"));
  EXPECT_THAT(queue_pairs_text(now, &before), HasSubstr("write read"));
  EXPECT_THAT(instances_text({}), HasSubstr("no program is attached"));
}

TEST(Status, ANewOwnerOfAFunctionNumberHasNoRate) {
  auto before = report_at(1'000'000'000, 5'000'000);
  const auto now = report_at(2'000'000'000, 10);
  // The counters went back: another owner, seen before its generation was.
  EXPECT_DOUBLE_EQ(summarize(now, &before)[0].rate.bytes_sent, 0);
  before.functions[0].generation = 4;
  EXPECT_DOUBLE_EQ(summarize(now, &before)[0].rate.bytes_sent, 0);
  EXPECT_DOUBLE_EQ(summarize(now, nullptr)[0].rate.bytes_sent, 0);
}

TEST(Json, CarriesTheReportAndSurvivesForeignBytes) {
  auto now = report_at(2'000'000'000, 10);
  now.functions[0].program = "bad\xff";
  const std::string text = status_json(now, nullptr);
  EXPECT_THAT(text, HasSubstr("\"process_id\": 42"));
  EXPECT_THAT(text, HasSubstr("\"dest_qpn\": 32769"));
  EXPECT_THAT(text, HasSubstr("\"per_second\""));
  EXPECT_THAT(version_json("1.0", nullptr), HasSubstr("\"isthmusd\": null"));
}

// --- doctor --------------------------------------------------------------------------------------

DoctorFacts healthy() {
  DoctorFacts facts;
  facts.host = {.root = true,
                .kernel = "6.1",
                .port_free = true,
                .process_memory = true,
                .receive_buffer_max = 4u << 20,
                .udp_segmentation = true,
                .udp_coalescing = true,
                .socket_steering = true,
                .ipv6 = true,
                .carryless_multiply = true,
                .network_namespaces = true,
                .ip_program = true};
  facts.libraries = {"/usr/lib/isthmus/libibverbs.so.1"};
  return facts;
}

Finding finding_of(const DoctorFacts& facts, const std::string& subject) {
  for (auto& finding : judge(facts)) {
    if (finding.subject == subject) return finding;
  }
  ADD_FAILURE() << "no finding about " << subject;
  return {};
}

TEST(Doctor, AHealthyHostHasNoComplaints) {
  for (const auto& finding : judge(healthy())) {
    EXPECT_EQ(finding.level, FindingLevel::kOk) << finding.subject;
    EXPECT_EQ(finding.advice, "") << finding.subject;
  }
}

TEST(Doctor, EveryComplaintComesWithAdvice) {
  DoctorFacts facts;  // Nothing works.
  facts.libraries_missing = {"libibverbs.so.1"};
  int complaints = 0;
  for (const auto& finding : judge(facts)) {
    if (finding.level == FindingLevel::kOk) continue;
    ++complaints;
    EXPECT_NE(finding.advice, "") << finding.subject;
  }
  EXPECT_GE(complaints, 8);
}

TEST(Doctor, TellsWhoHasThePort) {
  DoctorFacts facts = healthy();
  facts.host.port_free = false;
  facts.host.rxe_loaded = true;
  EXPECT_THAT(finding_of(facts, "UDP port 4791").state, HasSubstr("soft-RoCE"));
  facts.host.port_owner = 77;
  facts.host.port_owner_program = "nc";
  EXPECT_EQ(finding_of(facts, "UDP port 4791").level, FindingLevel::kMissing);
  EXPECT_THAT(finding_of(facts, "UDP port 4791").state, HasSubstr("nc, pid 77"));
  facts.daemon_process = 77;
  EXPECT_EQ(finding_of(facts, "UDP port 4791").level, FindingLevel::kOk);
}

TEST(Doctor, TellsYamaFromSeccomp) {
  DoctorFacts facts = healthy();
  facts.host.process_memory = false;
  EXPECT_THAT(finding_of(facts, "memory channel").advice, HasSubstr("seccomp"));
  facts.host.yama_scope = 1;
  EXPECT_EQ(finding_of(facts, "memory channel").level, FindingLevel::kOk);
  facts.host.yama_scope = 3;
  EXPECT_THAT(finding_of(facts, "memory channel").advice, HasSubstr("ptrace_scope"));
}

}  // namespace
}  // namespace isthmus::apps
