// The ICRC beside zlib's crc32, which is what a program would use without us: one polynomial, one
// input, one run. At 4096 bytes, a full path MTU, at least 4 times zlib's rate is promised.
//
// Each call depends on the one before, so short inputs show the latency that an acknowledgement
// pays and not the throughput of many at once.
#include <benchmark/benchmark.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "wire/byte_order.h"
#include "wire/icrc.h"
#include "wire/roce_packet.h"

namespace {

using namespace isthmus::wire;

// An acknowledgement, a 64-byte message and full packets of MTU 1024 and 4096; BTH included.
constexpr std::int64_t kLengths[] = {16, 44, 76, 100, 256, 1036, 4096};

std::vector<std::byte> some_bytes(std::size_t count) {
  std::vector<std::byte> bytes(count);
  std::uint32_t value = 1;
  for (std::byte& byte : bytes) byte = static_cast<std::byte>((value = value * 69069 + 1) >> 24);
  return bytes;
}

void zlib_crc32(benchmark::State& state) {
  const std::vector<std::byte> data = some_bytes(static_cast<std::size_t>(state.range(0)));
  uLong sum = 0;
  for (auto _ : state) {
    // SAFETY: zlib's name for bytes.
    sum = crc32(sum, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size()));
    benchmark::DoNotOptimize(sum);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

void our_crc32(benchmark::State& state, const Crc32Implementation& implementation) {
  const std::vector<std::byte> data = some_bytes(static_cast<std::size_t>(state.range(0)));
  std::uint32_t sum = 0;
  for (auto _ : state) {
    sum = implementation.update(sum, data);
    benchmark::DoNotOptimize(sum);
  }
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

IcrcFlow flow() {
  return {.source = IpAddress::from_v4(0x7f00'0001),
          .destination = IpAddress::from_v4(0x7f00'0002),
          .source_port = 0xc000};
}

void icrc_of_packet(benchmark::State& state) {
  const std::vector<std::byte> data = some_bytes(static_cast<std::size_t>(state.range(0)));
  const IcrcFlow to_peer = flow();
  for (auto _ : state) benchmark::DoNotOptimize(icrc(to_peer, data));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

// range(1) is the IP ID: 0 needs no search, as between two of ours.
void verify_packet(benchmark::State& state) {
  std::vector<std::byte> data = some_bytes(static_cast<std::size_t>(state.range(0)));
  const IcrcFlow to_peer = flow();
  const std::uint32_t sum = icrc(to_peer, data, static_cast<std::uint16_t>(state.range(1)));
  data.resize(data.size() + kIcrcBytes);
  store_le32(data.data() + data.size() - kIcrcBytes, sum);
  IcrcVerifier verifier;
  for (auto _ : state) benchmark::DoNotOptimize(verifier.verify(to_peer, data));
  state.SetBytesProcessed(state.iterations() * state.range(0));
}

}  // namespace

int main(int argc, char** argv) {
  for (const std::int64_t bytes : kLengths) {
    benchmark::RegisterBenchmark("zlib_crc32", zlib_crc32)->Arg(bytes);
    for (const Crc32Implementation& implementation : crc32_implementations()) {
      if (!implementation.supported) continue;
      const std::string name = std::string("crc32_") + implementation.name;
      benchmark::RegisterBenchmark(name.c_str(), our_crc32, implementation)->Arg(bytes);
    }
    benchmark::RegisterBenchmark("icrc_of_packet", icrc_of_packet)->Arg(bytes);
    benchmark::RegisterBenchmark("verify_packet/bytes/ip_id", verify_packet)->Args({bytes, 0});
    benchmark::RegisterBenchmark("verify_packet/bytes/ip_id", verify_packet)->Args({bytes, 4711});
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
