// Link rates: the enumerators of verbs against multiples of 2.5 Gbit/s and megabits a second.
//
// Spec: InfiniBand Architecture vol. 1, static rate. From FDR on, a rate is its signalling rate
// with the 64/66 coding taken off, which is no multiple of 2.5 Gbit/s.
#include <infiniband/verbs.h>

#include <array>

namespace {

constexpr int kNoMultiple = -1;

struct Rate {
  ibv_rate rate;
  int multiple;  // Of 2.5 Gbit/s.
  int mbps;
};

constexpr std::array kRates = {
    Rate{IBV_RATE_2_5_GBPS, 1, 2'500},
    Rate{IBV_RATE_5_GBPS, 2, 5'000},
    Rate{IBV_RATE_10_GBPS, 4, 10'000},
    Rate{IBV_RATE_20_GBPS, 8, 20'000},
    Rate{IBV_RATE_30_GBPS, 12, 30'000},
    Rate{IBV_RATE_40_GBPS, 16, 40'000},
    Rate{IBV_RATE_60_GBPS, 24, 60'000},
    Rate{IBV_RATE_80_GBPS, 32, 80'000},
    Rate{IBV_RATE_120_GBPS, 48, 120'000},
    Rate{IBV_RATE_14_GBPS, kNoMultiple, 14'062},
    Rate{IBV_RATE_56_GBPS, kNoMultiple, 56'250},
    Rate{IBV_RATE_112_GBPS, kNoMultiple, 112'500},
    Rate{IBV_RATE_168_GBPS, kNoMultiple, 168'750},
    Rate{IBV_RATE_25_GBPS, kNoMultiple, 25'781},
    Rate{IBV_RATE_100_GBPS, kNoMultiple, 103'125},
    Rate{IBV_RATE_200_GBPS, kNoMultiple, 206'250},
    Rate{IBV_RATE_300_GBPS, kNoMultiple, 309'375},
    Rate{IBV_RATE_28_GBPS, 11, 28'125},
    Rate{IBV_RATE_50_GBPS, 20, 53'125},
    Rate{IBV_RATE_400_GBPS, 160, 425'000},
    Rate{IBV_RATE_600_GBPS, 240, 637'500},
    Rate{IBV_RATE_800_GBPS, 320, 850'000},
    Rate{IBV_RATE_1200_GBPS, 480, 1'275'000},
};

template <class Key>
const Rate* find(Key Rate::*column, Key value) {
  for (const Rate& rate : kRates) {
    if (rate.*column == value) return &rate;
  }
  return nullptr;
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

int ibv_rate_to_mult(ibv_rate rate) {
  const Rate* found = find(&Rate::rate, rate);
  return found ? found->multiple : kNoMultiple;
}

ibv_rate mult_to_ibv_rate(int mult) {
  const Rate* found = mult == kNoMultiple ? nullptr : find(&Rate::multiple, mult);
  return found ? found->rate : IBV_RATE_MAX;
}

int ibv_rate_to_mbps(ibv_rate rate) {
  const Rate* found = find(&Rate::rate, rate);
  return found ? found->mbps : -1;
}

ibv_rate mbps_to_ibv_rate(int mbps) {
  const Rate* found = find(&Rate::mbps, mbps);
  return found ? found->rate : IBV_RATE_MAX;
}

}  // extern "C"
#pragma GCC visibility pop
