// Goal: sizes and the memory options of `isthmus run` are understood, or refused by name.
// Method: tables of right and wrong ones, one mistake each.
#include "apps/isthmus_run_memory.h"

#include <gtest/gtest.h>

#include <functional>

namespace isthmus::apps {
namespace {

constexpr std::uint64_t kPresentBytes = std::uint64_t{8} << 30;

TEST(ParseSize, ReadsNumbersAndUnits) {
  const std::pair<const char*, std::uint64_t> right[] = {
      {"0", 0},          {"4096", 4096},      {"64k", 65536},
      {"256M", 1 << 28}, {"1GiB", 1u << 30},  {"2TB", std::uint64_t{2} << 40},
      {"8388608T", std::uint64_t{1} << 63}};
  for (const auto& [text, bytes] : right) {
    const auto parsed = parse_size(text);
    ASSERT_TRUE(parsed) << parsed.error().message;
    EXPECT_EQ(*parsed, bytes) << text;
  }
}

TEST(ParseSize, RefusesEverythingElse) {
  for (const char* text : {"", "M", "-1", "+1", "1.5G", "1X", "1MM", "1 G", " 1G", "1Gi",
                           "8388609T", "99999999999999999999", "0x10"}) {
    EXPECT_FALSE(parse_size(text)) << text;
  }
}

RunOptions good() {
  RunOptions options;
  options.local_memory = "256M";
  options.far_memory = "4G";
  return options;
}

TEST(RunMemory, TakesWhatIsRight) {
  RunOptions options = good();
  options.memory_nodes = {"10.0.0.1", "10.0.0.2:9", "[fd00::1]:7"};
  const auto memory = check_run_memory(options, kPresentBytes);
  ASSERT_TRUE(memory) << memory.error().message;
  EXPECT_EQ(memory->local_bytes, 256u << 20);
  EXPECT_EQ(memory->far_bytes, std::uint64_t{4} << 30);

  const auto environment = memory_environment(*memory, options);
  ASSERT_TRUE(environment) << environment.error().message;
  EXPECT_EQ((*environment)[2].second, "10.0.0.1,10.0.0.2:9,[fd00::1]:7");
}

TEST(RunMemory, IsOffByDefault) {
  const auto memory = check_run_memory({}, kPresentBytes);
  ASSERT_TRUE(memory) << memory.error().message;
  EXPECT_EQ(memory->far_bytes, 0u);
}

TEST(RunMemory, WarnsOfKernelsThatCannotMovePages) {
  EXPECT_EQ(caution_for(os::kUffdWp | os::kUffdMove), "");
  EXPECT_NE(caution_for(os::kUffdWp).find("O_DIRECT may be lost"), std::string::npos);
}

TEST(RunMemory, RefusesEachMistakeByName) {
  using Change = std::function<void(RunOptions&)>;
  const std::pair<Change, const char*> wrong[] = {
      {[](RunOptions& o) { o.far_memory = ""; }, "--far-memory"},
      {[](RunOptions& o) { o.local_memory = ""; }, "--local-memory"},
      {[](RunOptions& o) { o.local_memory = "0"; }, "too little"},
      {[](RunOptions& o) { o.local_memory = "9G"; }, "more than this machine has"},
      {[](RunOptions& o) { o.local_memory = "much"; }, "--local-memory: 'much'"},
      {[](RunOptions& o) { o.far_memory = "0"; }, "--far-memory 0"},
      {[](RunOptions& o) { o.far_memory = "9T"; }, "--far-memory 9T"},
      {[](RunOptions& o) { o.far_memory = "-4G"; }, "--far-memory: '-4G'"},
      {[](RunOptions& o) { o.memory_nodes = {"host:99999"}; }, "--memory-node"},
      {[](RunOptions& o) { o = {.replicas = 2}; }, "--replicas"},
      {[](RunOptions& o) { o = {.prefetch = "none"}; }, "--prefetch"},
  };
  for (const auto& [change, words] : wrong) {
    RunOptions options = good();
    change(options);
    const auto memory = check_run_memory(options, kPresentBytes);
    ASSERT_FALSE(memory) << words;
    EXPECT_EQ(memory.error().code, ErrorCode::kInvalid);
    EXPECT_NE(memory.error().message.find(words), std::string::npos) << memory.error().message;
  }
}

}  // namespace
}  // namespace isthmus::apps
