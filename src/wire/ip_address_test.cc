// Goal: addresses in all their forms.
// Method: the examples of RFC 4291 and 5952, what is no address, and round trips at random.
#include <gtest/gtest.h>

#include <random>

#include "wire/byte_order.h"
#include "wire/ip.h"

namespace isthmus::wire {
namespace {

std::string reformat(std::string_view text) {
  const std::optional<IpAddress> address = IpAddress::parse(text);
  return address ? address->to_string() : "none";
}

TEST(IpAddress, FormatsTheShortestForm) {
  EXPECT_EQ(reformat("10.98.0.11"), "10.98.0.11");
  EXPECT_EQ(reformat("::"), "::");
  EXPECT_EQ(reformat("::1"), "::1");
  EXPECT_EQ(reformat("fe80::"), "fe80::");
  EXPECT_EQ(reformat("2001:0DB8:0:0:8:800:200C:417A"), "2001:db8::8:800:200c:417a");
  EXPECT_EQ(reformat("2001:db8:0:1:1:1:1:1"), "2001:db8:0:1:1:1:1:1") << "one zero group stays";
  EXPECT_EQ(reformat("2001:0:0:1:0:0:0:1"), "2001:0:0:1::1") << "the longest run";
  EXPECT_EQ(reformat("2001:db8::0:1:0:0:1"), "2001:db8::1:0:0:1") << "the first of equal runs";
  EXPECT_EQ(reformat("1:2:3:4:5:6:7::"), "1:2:3:4:5:6:7:0");
  EXPECT_EQ(reformat("::2:3:4:5:6:7:8"), "0:2:3:4:5:6:7:8");
  EXPECT_EQ(reformat("ff02::1:ff00:42"), "ff02::1:ff00:42");
}

TEST(IpAddress, HoldsIpv4AsAMappedAddress) {
  const IpAddress address = *IpAddress::parse("::ffff:10.0.0.1");
  EXPECT_TRUE(address.is_v4());
  EXPECT_EQ(address, IpAddress::from_v4(0x0a00'0001));
  EXPECT_EQ(address, *IpAddress::parse("10.0.0.1"));
  EXPECT_EQ(address.v4(), 0x0a00'0001u);
  EXPECT_EQ(address.to_string(), "10.0.0.1");
  EXPECT_EQ(address.header_bytes().size(), 4u);
  EXPECT_EQ(load_be16(address.bytes().data() + 10), 0xffff);
  EXPECT_EQ(IpAddress::parse("64:ff9b::1.2.3.4")->to_string(), "64:ff9b::102:304");
}

TEST(IpAddress, RefusesWhatIsNone) {
  for (const char* text : {"",
                           ".",
                           "1",
                           "1.2.3",
                           "1.2.3.4.5",
                           "1.2.3.256",
                           "01.2.3.4",
                           "1.2.3.4 ",
                           " 1.2.3.4",
                           "-1.2.3.4",
                           "1..2.3",
                           "1.2.3.",
                           ":",
                           ":::",
                           "1:",
                           ":1",
                           "1:2:3:4:5:6:7",
                           "1:2:3:4:5:6:7:8:9",
                           "1::2::3",
                           "::1:2:3:4:5:6:7:8",
                           "1:2:3:4:5:6:7:8::",
                           "12345::",
                           "g::",
                           "::1.2.3",
                           "1:2:3:4:5:6:7:1.2.3.4",
                           "::1.2.3.4:5",
                           "fe80::1%eth0",
                           "[::1]",
                           "::0x1",
                           "+1::"}) {
    EXPECT_FALSE(IpAddress::parse(text).has_value()) << text;
  }
}

TEST(IpAddress, ReadsBackWhatItWrites) {
  std::mt19937 random(1);
  for (int round = 0; round < 2000; ++round) {
    IpAddress::Bytes bytes{};
    // Each group is zero half of the time, so that runs of zeros occur everywhere.
    for (std::size_t group = 0; group < 8; ++group) {
      if ((random() & 1) != 0) {
        store_be16(bytes.data() + 2 * group,
                   static_cast<std::uint16_t>(random() >> (random() % 16)));
      }
    }
    const IpAddress address(bytes);
    const std::string text = address.to_string();
    EXPECT_EQ(IpAddress::parse(text), address) << text;
  }
}

TEST(IpAddress, KnowsItsScopes) {
  EXPECT_TRUE(IpAddress::parse("127.8.9.10")->is_loopback());
  EXPECT_TRUE(IpAddress::parse("::1")->is_loopback());
  EXPECT_FALSE(IpAddress::parse("::2")->is_loopback());
  EXPECT_TRUE(IpAddress::parse("239.1.2.3")->is_multicast());
  EXPECT_FALSE(IpAddress::parse("240.0.0.1")->is_multicast());
  EXPECT_TRUE(IpAddress::parse("ff15::1")->is_multicast());
  EXPECT_TRUE(IpAddress::parse("fe80::1")->is_link_local());
  EXPECT_TRUE(IpAddress::parse("febf::1")->is_link_local());
  EXPECT_FALSE(IpAddress::parse("fec0::1")->is_link_local());
  EXPECT_TRUE(IpAddress::parse("169.254.3.4")->is_link_local());
  EXPECT_TRUE(IpAddress{}.is_zero());
}

}  // namespace
}  // namespace isthmus::wire
