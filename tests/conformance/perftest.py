#!/usr/bin/python3
"""perftest, every valid combination, in every placement: does each verb work, not how fast.

Operation x bandwidth/latency x transport, each with the QPs connected by perftest's own TCP
exchange and by rdma_cm (-R), then with completion events (-e), inline data (-I), a shared
receive queue (--use-srq) and two queue pairs in both directions (-b) where the operation has them;
large unreliable messages in number, which nobody would send again.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import placements  # noqa: E402

TRANSPORTS = {"write": ("RC", "UC"), "read": ("RC",), "send": ("RC", "UC", "UD"),
              "atomic": ("RC",)}
# Several packets of every path MTU; a UD message is one packet; an atomic has no size.
MESSAGE_BYTES = 10000
DATAGRAM_BYTES = 1000
INLINE_BYTES = 64
LARGE_BYTES = 1000000


def combinations():
    """(name of the test, program, its options)"""
    for operation, transports in TRANSPORTS.items():
        for measure in ("bw", "lat"):
            for transport in transports:
                variants = [("", [])]
                if transport != "UC":  # perftest: "UC is not supported in librdmacm"
                    variants.append(("cm", ["-R"]))
                if operation != "write":
                    variants.append(("events", ["-e"]))
                if operation in ("write", "send"):
                    variants.append(("inline", ["-I", INLINE_BYTES]))
                if operation == "send" and transport != "UC":
                    variants.append(("srq", ["--use-srq"]))
                if measure == "bw" and transport == "RC":
                    variants.append(("both_ways", ["-b", "-q", 2, "-n", 1000]))
                if measure == "bw" and transport == "UC":
                    variants.append(("large", ["-s", LARGE_BYTES]))
                for variant, options in variants:
                    size = DATAGRAM_BYTES if transport == "UD" else MESSAGE_BYTES
                    if variant == "inline":
                        size = INLINE_BYTES
                    words = ["-c", transport, "-n", 100]
                    if operation != "atomic":
                        words += ["-s", size]
                    words += options
                    name = "_".join(filter(None, (operation, measure, transport, variant)))
                    yield name, f"ib_{operation}_{measure}", words


class Perftest(placements.Placed):
    def perftest(self, program, options):
        testing.need_programs(program)
        if "-R" in options and self.placement == "rxe_serves":
            self.skipTest("the server of perftest closes its listener after a first connection and "
                          "opens another for the second: on an emulated processor, too late")
        if self.has_rxe and LARGE_BYTES in options:
            self.skipTest("an emulated processor loses unreliable packets at this rate")
        port = testing.fresh_port()
        server, client = ([program, "-d", host.device, "-x", host.gid_index(), "-p", port, "-F",
                           *options] for host in (self.server, self.client))
        self.check_pair(server, [*client, self.server.address])


for test_name, test_program, test_options in combinations():
    def method(self, program=test_program, options=test_options):
        self.perftest(program, options)
    setattr(Perftest, f"test_{test_name}", method)

placements.multiply(globals(), Perftest, placements.OURS)

if __name__ == "__main__":
    testing.main()
