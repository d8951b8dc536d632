// Goal: enumerators are called what programs are used to, and rates convert as they know it.
// Method: compare with the distribution's own library, over all values and past both ends.
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <infiniband/verbs.h>

#include <string>

namespace isthmus::verbs {
namespace {

// libibverbs as rdma-core built it, beside ours; its names stay its own.
class Original {
 public:
  Original() : handle_(dlopen("libibverbs.so.1", RTLD_NOW | RTLD_LOCAL)) {}

  bool is_there() const { return handle_ != nullptr; }

  template <class Function>
  Function* find(const char* name) const {
    return reinterpret_cast<Function*>(dlsym(handle_, name));
  }

 private:
  void* handle_;
};

class AgainstTheOriginal : public testing::Test {
 protected:
  void SetUp() override {
    if (!original_.is_there()) GTEST_SKIP() << "the distribution's libibverbs.so.1 is missing";
  }

  template <class Enum>
  void compare_names(const char* function, const char* (*ours)(Enum), int past_end) {
    auto* theirs = original_.find<const char*(int)>(function);
    ASSERT_NE(theirs, nullptr);
    for (int value = -2; value <= past_end; ++value) {
      EXPECT_STREQ(ours(static_cast<Enum>(value)), theirs(value)) << function << " " << value;
    }
  }

  Original original_;
};

TEST_F(AgainstTheOriginal, NamesAreTheSame) {
  compare_names("ibv_wc_status_str", &ibv_wc_status_str, 30);
  compare_names("ibv_event_type_str", &ibv_event_type_str, 30);
  compare_names("ibv_node_type_str", &ibv_node_type_str, 10);
  compare_names("ibv_port_state_str", &ibv_port_state_str, 10);
}

TEST_F(AgainstTheOriginal, RatesAreTheSame) {
  auto* rate_to_multiple = original_.find<int(int)>("ibv_rate_to_mult");
  auto* rate_to_mbps = original_.find<int(int)>("ibv_rate_to_mbps");
  for (int rate = 0; rate < 32; ++rate) {
    EXPECT_EQ(ibv_rate_to_mult(static_cast<ibv_rate>(rate)), rate_to_multiple(rate)) << rate;
    EXPECT_EQ(ibv_rate_to_mbps(static_cast<ibv_rate>(rate)), rate_to_mbps(rate)) << rate;
  }
  auto* multiple_to_rate = original_.find<int(int)>("mult_to_ibv_rate");
  for (int multiple = -1; multiple < 600; ++multiple) {
    EXPECT_EQ(mult_to_ibv_rate(multiple), multiple_to_rate(multiple)) << multiple;
  }
  auto* mbps_to_rate = original_.find<int(int)>("mbps_to_ibv_rate");
  for (int rate = 0; rate < 32; ++rate) {
    const int mbps = rate_to_mbps(rate);
    for (const int near : {mbps - 1, mbps, mbps + 1}) {
      EXPECT_EQ(mbps_to_ibv_rate(near), mbps_to_rate(near)) << near;
    }
  }
}

}  // namespace
}  // namespace isthmus::verbs
