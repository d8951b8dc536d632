#!/usr/bin/python3
"""Our ICRC and BTH decoder judged by scapy, which knows RoCEv2 without us.

    icrc_scapy.py READER [SEED]

Builds random packets with scapy.contrib.roce (of every kind of opcode, any length, any IP ID, TOS
and TTL), lets READER (icrc_scapy_reader.cc) decode them from a pcap file and compares each field.
scapy computes the ICRC for IPv4 only; for IPv6 it is computed here from scapy's headers with
zlib.crc32 and the masks of the RoCEv2 annex.
"""
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import zlib

NOTHING_RAN = 77  # Exit status that ctest reports as "skipped" (SKIP_RETURN_CODE).
PACKETS = 400

try:
    from scapy.contrib.roce import BTH
    from scapy.layers.inet import IP, UDP
    from scapy.layers.inet6 import IPv6
    from scapy.layers.l2 import Ether
    from scapy.packet import Raw
    from scapy.utils import PcapReader, wrpcap
except ImportError as error:
    print(f"skip: icrc_scapy: scapy is not there for {sys.executable} ({error}); "
          "install Debian's python3-scapy")
    sys.exit(NOTHING_RAN)

# Both addresses given, or scapy would ask the network for them.
ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")

# Opcode: bytes of extended headers. Those scapy's BTH takes as payload are random bytes here.
OPCODES = {0x00: 0, 0x01: 0, 0x02: 0, 0x03: 4, 0x04: 0, 0x05: 4, 0x06: 16, 0x07: 0, 0x08: 0,
           0x09: 4, 0x0a: 16, 0x0b: 20, 0x0d: 4, 0x0e: 0, 0x0f: 4, 0x10: 4, 0x16: 4, 0x17: 4,
           0x20: 0, 0x24: 0, 0x25: 4, 0x26: 16, 0x2a: 16, 0x64: 8, 0x65: 12, 0xa4: 4, 0xaa: 20}
WITHOUT_PAYLOAD = {0x0c: 16, 0x11: 4, 0x12: 12, 0x13: 28, 0x14: 28, 0xac: 20, 0xb3: 32}


def random_bytes(source, count):
    return bytes(source.getrandbits(8) for _ in range(count))


def random_roce(source):
    """A BTH of scapy's with everything behind it, and what the reader is to say about it."""
    opcode, extended = source.choice(list(OPCODES.items()) + list(WITHOUT_PAYLOAD.items()))
    payload = 0
    if opcode in OPCODES:
        payload = source.choice([0, 1, 2, 3, 4, 64, source.randrange(4097), 1024, 4096])
    pad = -payload % 4
    bth = BTH(opcode=opcode, solicited=source.getrandbits(1), migreq=source.getrandbits(1),
              padcount=pad, pkey=source.getrandbits(16), fecn=source.getrandbits(1),
              becn=source.getrandbits(1), resv6=source.getrandbits(6),
              dqpn=source.getrandbits(24), ackreq=source.getrandbits(1),
              resv7=source.getrandbits(7), psn=source.getrandbits(24))
    fields = [opcode, bth.solicited, pad, bth.dqpn, bth.ackreq, bth.psn, payload]
    return bth / Raw(random_bytes(source, extended + payload) + bytes(pad)), fields


def random_v4(source):
    roce, fields = random_roce(source)
    flags = source.choice(["DF", "DF", 0])
    addresses = [".".join(str(source.randrange(1, 255)) for _ in range(4)) for _ in range(2)]
    ip = IP(src=addresses[0], dst=addresses[1], id=source.choice([0, source.getrandbits(16)]),
            tos=source.getrandbits(8), ttl=source.randrange(1, 256), flags=flags)
    packet = ETHERNET / ip / UDP(sport=source.getrandbits(16), dport=4791) / roce
    built = bytes(packet)
    match = "exact" if ip.id == 0 and flags == "DF" else "recovered"
    icrc = struct.unpack("<I", built[-4:])[0] if flags == "DF" else "-"
    return built, [*fields, icrc, match, ip.id]


def random_v6(source):
    roce, fields = random_roce(source)
    roce.icrc = 0
    ip = IPv6(src="2001:db8::%x" % source.getrandbits(16), dst="fe80::%x" % source.getrandbits(16),
              tc=source.getrandbits(8), fl=source.getrandbits(20), hlim=source.randrange(1, 256))
    built = bytearray(bytes(ETHERNET / ip / UDP(sport=source.getrandbits(16), dport=4791) / roce))
    masked = bytearray(built[14:-4])
    masked[0:4] = b"\x6f\xff\xff\xff"  # Traffic class and flow label.
    masked[7] = 0xff                   # Hop limit.
    masked[46:48] = b"\xff\xff"        # UDP checksum.
    masked[52] = 0xff                  # FECN, BECN and the reserved bits beside them.
    icrc = zlib.crc32(b"\xff" * 8 + masked)
    built[-4:] = struct.pack("<I", icrc)
    return bytes(built), [*fields, icrc, "exact", 0]


def check(reader, folder, name, packets, expected):
    path = pathlib.Path(folder) / f"{name}.pcap"
    wrpcap(str(path), packets, linktype=1)
    output = subprocess.run([reader, path], check=True, text=True, capture_output=True).stdout
    lines = output.splitlines()
    wrong = 0 if len(lines) == len(packets) else abs(len(lines) - len(packets))
    for number, (line, fields) in enumerate(zip(lines, expected)):
        if line != " ".join(map(str, fields)):
            wrong += 1
            print(f"{name} packet {number}: expected {fields}, found {line}")
    print(f"{name}: {len(packets)} packets, {wrong} wrong")
    return wrong


def check_golden(reader):
    """The traces of Linux soft-RoCE: scapy's ICRC, the stored one and ours are the same."""
    wrong = 0
    folder = pathlib.Path(__file__).resolve().parent.parent / "golden"
    for path in sorted(folder.glob("*.pcap")):
        output = subprocess.run([reader, path], check=True, text=True, capture_output=True).stdout
        lines = output.splitlines()
        with PcapReader(str(path)) as packets:
            for line, packet in zip(lines, packets, strict=True):
                packet[BTH].icrc = None
                scapy_icrc = struct.unpack("<I", bytes(packet)[-4:])[0]
                words = line.split()
                if words[7:9] != [str(scapy_icrc), "recovered"] or words[9] != str(packet[IP].id):
                    wrong += 1
                    print(f"{path.name}: scapy says {scapy_icrc}, we say {line}")
        print(f"{path.name}: {len(lines)} packets, {wrong} wrong")
    return wrong


def main():
    reader = sys.argv[1]
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    source = random.Random(seed)
    wrong = check_golden(reader)
    with tempfile.TemporaryDirectory() as folder:
        for name, build in (("ipv4", random_v4), ("ipv6", random_v6)):
            packets, expected = zip(*(build(source) for _ in range(PACKETS)))
            wrong += check(reader, folder, name, packets, expected)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
