#!/usr/bin/python3
"""Packets of real programs through tshark and scapy, which know RoCEv2 without us.

    dissect.py               captures runs between two network namespaces (root) and checks them
    dissect.py check FILE... checks captures, for example those of `isthmus capture`

tshark must dissect every packet of UDP port 4791 as InfiniBand, with nothing malformed; scapy
computes each IPv4 packet's ICRC anew (it knows none for IPv6).
"""
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import placements  # noqa: E402

OPCODES_SEEN = {  # In the runs below, at least.
    "RC SEND": 0x04, "RC SEND FIRST": 0x00, "RC WRITE FIRST": 0x06, "RC WRITE ONLY": 0x0a,
    "RC READ REQUEST": 0x0c, "RC READ RESPONSE FIRST": 0x0d, "RC ACK": 0x11,
    "RC ATOMIC ACK": 0x12, "RC FETCH ADD": 0x14, "UC SEND": 0x24, "UD SEND": 0x64}


def dissect(path):
    """The opcodes in a capture, one per packet, and what tshark found wrong, one line each."""
    fields = ("frame.number", "infiniband.bth.opcode", "frame.protocols", "_ws.malformed",
              "_ws.expert.message")
    lines = subprocess.run(
        ["tshark", "-r", path, "-Y", "udp.dstport == 4791", "-T", "fields",
         *(word for field in fields for word in ("-e", field))],
        check=True, text=True, capture_output=True).stdout.splitlines()
    opcodes, wrong = [], []
    for line in lines:
        number, opcode, protocols, malformed, message = line.split("\t")
        # tshark also guesses what the payload might be; what it makes of random bytes is no fault.
        guessed = not protocols.endswith(":infiniband")
        if not opcode or (malformed and not guessed):
            wrong.append(f"{path}: packet {number}: {message or 'not dissected as InfiniBand'}")
        else:
            opcodes.append(int(opcode.split(",")[0], 0))
    return opcodes, wrong


def wrong_icrcs(path):
    """One line for each packet whose ICRC is not what scapy computes; and how many it checked."""
    from scapy.contrib.roce import BTH
    from scapy.layers.inet import IP
    from scapy.utils import PcapReader
    wrong, count = [], 0
    with PcapReader(str(path)) as packets:
        for number, packet in enumerate(packets, 1):
            if IP not in packet or BTH not in packet:
                continue
            count += 1
            bth = packet[BTH]
            computed = bth.compute_icrc(b"")
            if computed != bth.icrc.to_bytes(4, "big"):
                wrong.append(f"{path}: packet {number}: ICRC {bth.icrc:08x}, "
                             f"scapy computes {computed.hex()}")
    return wrong, count


def need_judges():
    testing.need_programs("tshark", "dumpcap")
    try:
        import scapy.contrib.roce  # noqa: F401
    except ImportError:
        raise unittest.SkipTest("python3-scapy is not installed") from None


class Capture:
    """The RoCEv2 packets at an interface, while in the `with` block."""

    _end = b"\xff" * 6 + b"\x02\0\0\0\0\1" + b"\x88\xb5" + b"isthmus: end of the capture".ljust(46)

    def __init__(self, namespace, interface, path):
        self._namespace, self._interface, self._path = namespace, interface, path
        self._dumpcap = testing.Process(
            [*namespace.prefix, "dumpcap", "-q", "-i", interface, "-B", 64, "-w", path,
             "-f", "udp port 4791 or ether proto 0x88b5"])

    def __enter__(self):
        while "File:" not in self._dumpcap.output():  # It is printed when packets are taken.
            if self._dumpcap.wait(0.05) is not None:
                raise RuntimeError(f"dumpcap: {self._dumpcap.output()}")
        return self

    def __exit__(self, *_):
        # A stopped dumpcap forgets what it has not written yet: stop it after it wrote our frame.
        with self._namespace.visit(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
            out.bind((self._interface, 0))
            out.send(self._end)
        deadline = time.monotonic() + testing.START_SECONDS
        while self._end not in self._path.read_bytes() and time.monotonic() < deadline:
            self._dumpcap.wait(0.1)
        self._dumpcap.signal(signal.SIGINT)
        self._dumpcap.wait(testing.START_SECONDS)
        self._dumpcap.stop()


class Dissection(placements.Placed):
    def pingpong(self, kind, *options):
        port = testing.fresh_port()
        server, client = ([f"ibv_{kind}_pingpong", "-d", host.device, "-g", host.gid_index(),
                           "-p", port, "-n", 20, *options] for host in (self.server, self.client))
        self.check_pair(server, [*client, self.server.address])

    def perftest(self, program, *options):
        port = testing.fresh_port()
        server, client = ([program, "-d", host.device, "-x", host.gid_index(), "-p", port, "-F",
                           "-n", 20, *options] for host in (self.server, self.client))
        self.check_pair(server, [*client, self.server.address])

    def run_programs(self):
        self.pingpong("rc", "-s", 9001)
        self.pingpong("uc", "-s", 1001)
        self.pingpong("ud", "-s", 999)
        for size in (1, 2, 3, 4, 1023, 10000):  # Every padding.
            self.perftest("ib_write_bw", "-s", size)
            self.perftest("ib_read_bw", "-s", size)
        self.perftest("ib_atomic_bw")
        rping = ["rping", "-C", 5, "-a", self.server.address, "-p", testing.fresh_port()]
        self.check_pair([*rping, "-s"], [*rping, "-c"])

    def check_packets(self, path, expected):
        opcodes, malformed = dissect(path)
        self.assertEqual(malformed, [])
        missing = [name for name, code in expected.items() if code not in opcodes]
        self.assertEqual(missing, [], f"not among {len(opcodes)} packets")
        wrong, count = wrong_icrcs(path)
        self.assertEqual(wrong[:5], [], f"{len(wrong)} of {count} packets")
        self.assertEqual(count, len(opcodes))

    def test_every_packet_is_well_formed_with_the_right_icrc(self):
        need_judges()
        for host in (self.server, self.client):
            # A large send leaves as one buffer and is cut into packets by whoever needs packets:
            # make that the sender, before the capture.
            host.namespace.ip("link", "set", "eth0", "gso_max_segs", 1)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "run.pcapng")
            with Capture(*placements.capture_points[self.placement], path):
                self.run_programs()
            self.check_packets(path, OPCODES_SEEN)


class CaptureCommand(Dissection):
    """The same runs, as `isthmus capture` writes them: on the memory channel too."""

    def test_every_packet_is_well_formed_with_the_right_icrc(self):
        need_judges()
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder, "run.pcapng")
            capture = self.server.command("capture", "-w", path)
            try:
                while "capturing" not in capture.output():
                    self.assertIsNone(capture.wait(0.05), capture.output())
                self.pingpong("rc", "-s", 9001)
                self.pingpong("ud", "-s", 999)
                self.perftest("ib_write_bw", "-s", 10000)
                self.perftest("ib_atomic_bw")
                capture.signal(signal.SIGINT)
                self.assertEqual(capture.wait(testing.START_SECONDS), 0, capture.output())
            finally:
                capture.stop()
            self.check_packets(path, {"RC SEND FIRST": 0x00, "UD SEND": 0x64,
                                      "RC WRITE FIRST": 0x06, "RC FETCH ADD": 0x14})


class TheJudgesThemselves(unittest.TestCase):
    def test_scapy_finds_the_one_packet_with_a_wrong_icrc(self):
        need_judges()
        from scapy.contrib.roce import BTH
        from scapy.layers.inet import IP, UDP
        from scapy.layers.l2 import Ether
        from scapy.utils import wrpcap
        packet = Ether() / IP(src="10.0.0.1", dst="10.0.0.2", id=7) / UDP(sport=49152) / BTH(
            opcode=4, dqpn=17, psn=3) / b"abcd"
        good = bytes(packet)
        bad = good[:-5] + bytes([good[-5] ^ 1]) + good[-4:]
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/two.pcap"
            wrpcap(path, [Ether(good), Ether(bad)])
            wrong, count = wrong_icrcs(path)
        self.assertEqual(count, 2)
        self.assertEqual(len(wrong), 1)
        self.assertIn("packet 2", wrong[0])


placements.multiply(globals(), Dissection, ("two_namespaces",))
if "ISTHMUS_PLACEMENTS" not in os.environ:
    placements.multiply(globals(), CaptureCommand, ("same_host", "same_host_roce"))


def check_files(paths):
    failed = False
    for path in paths:
        opcodes, wrong = dissect(path)
        wrong_checks, count = wrong_icrcs(path)
        for line in wrong + wrong_checks:
            print(line)
        print(f"{path}: {len(opcodes)} RoCEv2 packets, {len(wrong)} malformed; "
              f"{count} ICRCs checked, {len(wrong_checks)} wrong")
        failed = failed or bool(wrong or wrong_checks or not opcodes)
    return 1 if failed else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["check"]:
        sys.exit(check_files(sys.argv[2:]))
    testing.main()
