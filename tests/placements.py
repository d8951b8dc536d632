"""Where the server and the client of a test run. Each placement is a pair of Hosts.

    same_host         one daemon, memory channel
    same_host_roce    one daemon, every QP forced onto RoCEv2
    two_loopback      two daemons on two addresses of 127/8; needs no root
    two_namespaces    two daemons in two network namespaces joined by a cable; needs root
    lossy_cable       the same, but the cable loses, repeats, reorders and damages packets
    rxe_serves        the server in a soft-RoCE guest, the client on ours; needs root
    rxe_connects      the other way round
    rxe_both          two soft-RoCE guests: judges the tests themselves, nothing of ours runs

A test class derives from Placed and is multiplied by multiply(globals(), Class, names...). The
environment variable ISTHMUS_PLACEMENTS (names, separated by commas) replaces every list of names:
`ISTHMUS_PLACEMENTS=rxe_both tests/e2e/pingpongs.py` tries the tests out on rxe.
A placement is opened at its first use and closed by isthmus_testing.main().
"""
import os
import pathlib
import sys
import unittest

import isthmus_testing as testing
import lossy_cable

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent / "conformance"))
import rxe_guest  # noqa: E402

OURS = ("same_host", "same_host_roce", "two_loopback", "two_namespaces")
WITH_RXE = ("rxe_serves", "rxe_connects")
capture_points = {}  # Placement -> (namespace, interface) where its packets pass.
CABLE_SEED = 7
GUEST_MTU = 4200  # Room for a path MTU of 4096; the pingpongs ask for 1024 by themselves.
GUEST_LIMIT_FACTOR = 4  # An emulated processor is slower than the time limits of tests assume.


def _one_host(number, channel=None):
    host = testing.at_end.enter_context(
        testing.closing(testing.Host(testing.loopback_address(number), channel=channel)))
    return host, host


def _two_loopback():
    return tuple(testing.at_end.enter_context(
        testing.closing(testing.Host(testing.loopback_address(number)))) for number in (3, 4))


def _two_namespaces():
    testing.need_isthmus()
    first, second = (testing.at_end.enter_context(testing.closing(testing.Namespace()))
                     for _ in range(2))
    testing.connect_namespaces(first, second, "10.98.0.1", "10.98.0.2")
    capture_points["two_namespaces"] = first, "eth0"
    return tuple(testing.at_end.enter_context(testing.closing(testing.Host(address, namespace)))
                 for address, namespace in (("10.98.0.1", first), ("10.98.0.2", second)))


def _lossy_cable():
    testing.need_isthmus()
    ends = [(testing.at_end.enter_context(testing.closing(testing.Namespace())), address)
            for address in ("10.97.0.1", "10.97.0.2")]
    cable = testing.at_end.enter_context(
        testing.closing(lossy_cable.LossyCable(ends, CABLE_SEED)))
    testing.at_end.callback(lambda: print(f"lossy cable, seed {CABLE_SEED}: {dict(cable.counts)}"))
    return tuple(testing.at_end.enter_context(testing.closing(testing.Host(address, namespace)))
                 for namespace, address in ends)


def _guest_and_host():
    testing.need_isthmus()
    network = testing.at_end.enter_context(testing.closing(rxe_guest.Network(GUEST_MTU)))
    guest = testing.at_end.enter_context(testing.closing(rxe_guest.Guest(network)))
    capture_points["rxe_serves"] = capture_points["rxe_connects"] = network.namespace, "tap1"
    host = testing.at_end.enter_context(
        testing.closing(testing.Host(network.address, network.namespace)))
    return guest.wait_boot(), host


def _two_guests():
    network = testing.at_end.enter_context(testing.closing(rxe_guest.Network(GUEST_MTU)))
    capture_points["rxe_both"] = network.namespace, "tap1"
    guests = [testing.at_end.enter_context(testing.closing(rxe_guest.Guest(network)))
              for _ in range(2)]
    return tuple(guest.wait_boot() for guest in guests)


_openers = {
    "same_host": lambda: _one_host(1),
    "same_host_roce": lambda: _one_host(2, channel="roce"),
    "two_loopback": _two_loopback,
    "two_namespaces": _two_namespaces,
    "lossy_cable": _lossy_cable,
    "rxe_serves": lambda: open_pair("guest_and_host"),
    "rxe_connects": lambda: open_pair("guest_and_host")[::-1],
    "rxe_both": _two_guests,
    "guest_and_host": _guest_and_host,
}
_open_pairs = {}


def open_pair(name):
    """(server host, client host); what made it impossible is raised again for every test."""
    if name not in _open_pairs:
        try:
            _open_pairs[name] = _openers[name]()
        except (unittest.SkipTest, RuntimeError) as error:
            _open_pairs[name] = error
    if isinstance(_open_pairs[name], Exception):
        raise _open_pairs[name]
    return _open_pairs[name]


class Placed:
    """Mixed into a TestCase by multiply(): self.server and self.client are Hosts."""

    placement = None

    @classmethod
    def setUpClass(cls):
        cls.server, cls.client = open_pair(cls.placement)
        cls.has_rxe = cls.placement.startswith("rxe")

    def check_pair(self, server_argv, client_argv, limit=30, **options):
        if self.has_rxe:
            limit *= GUEST_LIMIT_FACTOR
        story = testing.run_pair(self.server, self.client, server_argv, client_argv, limit,
                                 **options)
        if story:
            self.fail(story)

    def skip_on_rxe(self, reason):
        if self.has_rxe:
            self.skipTest(f"Linux rxe {reason}")


def multiply(module_globals, base, names):
    wanted = os.environ.get("ISTHMUS_PLACEMENTS")
    for name in wanted.split(",") if wanted else names:
        title = f"{base.__name__}_{name}"
        module_globals[title] = type(title, (base, unittest.TestCase),
                                     {"placement": name, "__module__": base.__module__})
