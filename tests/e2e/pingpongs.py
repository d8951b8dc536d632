#!/usr/bin/python3
"""rdma-core's pingpongs, with their content check, in every placement.

Their two sides exchange QP numbers over TCP, so this is the path without rdma_cm.
"""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import placements  # noqa: E402


class Pingpong(placements.Placed):
    def pingpong(self, kind, *options):
        port = testing.fresh_port()
        server, client = (
            [f"ibv_{kind}_pingpong", "-d", host.device, "-g", host.gid_index(), "-p", port,
             *options] for host in (self.server, self.client))
        self.check_pair(server, [*client, self.server.address])

    def test_rc(self):
        self.pingpong("rc", "-c", "-n", 200)

    def test_rc_messages_longer_than_a_packet(self):
        self.pingpong("rc", "-c", "-n", 50, "-s", 100000)

    def test_rc_sleeping_on_events(self):
        self.pingpong("rc", "-c", "-e", "-n", 200)

    def test_rc_on_demand_paging(self):
        self.skip_on_rxe("of kernel 6.1 has no on-demand paging")
        self.pingpong("rc", "-c", "-o", "-n", 50)

    def test_uc(self):
        self.pingpong("uc", "-c", "-n", 200)

    def test_ud(self):
        self.pingpong("ud", "-c", "-n", 200, "-s", 1024)

    def test_srq(self):
        self.pingpong("srq", "-c", "-n", 20)

    def test_srq_sleeping_on_events(self):
        self.pingpong("srq", "-c", "-e", "-n", 20)

    def test_xsrq(self):
        self.skip_on_rxe("has no XRC")
        self.pingpong("xsrq", "-n", 5)


placements.multiply(globals(), Pingpong, placements.OURS)

if __name__ == "__main__":
    testing.main()
