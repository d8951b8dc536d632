// Goal: an environment is either understood or refused with the variable's name.
// Method: a full one, an empty one, the defaults; then one wrong value at a time.
#include "preload/far_settings.h"

#include <gtest/gtest.h>

#include <map>

namespace isthmus::preload {
namespace {

using Variables = std::map<std::string, std::string>;

Result<std::optional<FarSettings>> read(const Variables& variables) {
  return read_far_settings([&variables](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(FarSettings, ReadsAll) {
  const auto settings = read({{"ISTHMUS_FAR_MEMORY", "4294967296"},
                              {"ISTHMUS_LOCAL_MEMORY", "268435457"},
                              {"ISTHMUS_MEMORY_NODES", "10.0.0.1:7471,[fd00::2]:7471"},
                              {"ISTHMUS_MEMORY_REPLICAS", "2"},
                              {"ISTHMUS_PREFETCH", "next"}});
  ASSERT_TRUE(settings) << settings.error().message;
  ASSERT_TRUE(settings->has_value());
  EXPECT_EQ((*settings)->far_bytes, 4294967296u);
  EXPECT_EQ((*settings)->local_bytes, 268435456u + 4096u);  // Up to whole pages.
  EXPECT_EQ((*settings)->nodes, (std::vector<std::string>{"10.0.0.1:7471", "[fd00::2]:7471"}));
  EXPECT_EQ((*settings)->replicas, 2u);
  EXPECT_EQ((*settings)->prefetch, farmem::PrefetchPolicy::kNext);
}

TEST(FarSettings, NothingAskedForIsNothing) {
  for (const Variables& variables :
       {Variables{}, Variables{{"ISTHMUS_FAR_MEMORY", ""}},
        Variables{{"ISTHMUS_LOCAL_MEMORY", "nonsense"}}}) {
    const auto settings = read(variables);
    ASSERT_TRUE(settings) << settings.error().message;
    EXPECT_FALSE(settings->has_value());
  }
}

TEST(FarSettings, HasDefaults) {
  const auto settings = read({{"ISTHMUS_FAR_MEMORY", "8192"}, {"ISTHMUS_LOCAL_MEMORY", "4096"}});
  ASSERT_TRUE(settings) << settings.error().message;
  EXPECT_EQ((*settings)->replicas, 1u);
  EXPECT_EQ((*settings)->prefetch, farmem::PrefetchPolicy::kAdaptive);
  EXPECT_TRUE((*settings)->nodes.empty());
}

TEST(FarSettings, RefusesEachWrongValueByName) {
  const Variables good{{"ISTHMUS_FAR_MEMORY", "8192"}, {"ISTHMUS_LOCAL_MEMORY", "4096"}};
  const std::vector<std::pair<std::string, std::string>> wrong{
      {"ISTHMUS_FAR_MEMORY", "0"},
      {"ISTHMUS_FAR_MEMORY", "-1"},
      {"ISTHMUS_FAR_MEMORY", "4G"},
      {"ISTHMUS_FAR_MEMORY", "99999999999999999999999"},
      {"ISTHMUS_FAR_MEMORY", "18446744073709551615"},
      {"ISTHMUS_LOCAL_MEMORY", ""},
      {"ISTHMUS_LOCAL_MEMORY", "0"},
      {"ISTHMUS_LOCAL_MEMORY", " 1"},
      {"ISTHMUS_MEMORY_NODES", ",a:1"},
      {"ISTHMUS_MEMORY_NODES", "a:1,,b:2"},
      {"ISTHMUS_MEMORY_NODES", std::string(256, 'a')},
      {"ISTHMUS_MEMORY_REPLICAS", "0"},
      {"ISTHMUS_MEMORY_REPLICAS", "3"},
      {"ISTHMUS_PREFETCH", "Adaptive"},
      {"ISTHMUS_PREFETCH", std::string(100'000, 'x')},
  };
  for (const auto& [name, value] : wrong) {
    Variables variables = good;
    variables[name] = value;
    const auto settings = read(variables);
    ASSERT_FALSE(settings) << name << "=" << value;
    EXPECT_EQ(settings.error().code, ErrorCode::kInvalid);
    EXPECT_NE(settings.error().message.find(name), std::string::npos) << settings.error().message;
  }
}

}  // namespace
}  // namespace isthmus::preload
