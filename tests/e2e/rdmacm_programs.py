#!/usr/bin/python3
"""rdma-core's rdma_cm programs, in every placement."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import placements  # noqa: E402


class ConnectionManager(placements.Placed):
    def serve(self, program, *options, bind=True, **limits):
        """PROGRAM -p PORT [-b ADDRESS] OPTIONS serves; PROGRAM -p PORT -s ADDRESS connects."""
        words = [program, "-p", testing.fresh_port(), *options]
        self.check_pair([*words, *(["-b", self.server.address] if bind else [])],
                        [*words, "-s", self.server.address], **limits)

    def rping(self, *options):
        words = ["rping", "-v", "-V", "-p", testing.fresh_port(), "-a", self.server.address,
                 *options]
        self.check_pair([*words, "-s"], [*words, "-c"])

    def test_rping(self):
        self.rping("-C", 20)

    def test_rping_large(self):
        self.rping("-C", 5, "-S", 60000)

    def test_rping_own_queue_pair(self):
        self.rping("-C", 20, "-q")

    def test_ucmatose(self):
        self.serve("ucmatose", "-c", 4, "-C", 10, "-S", 1000, listens=True)

    def test_udaddy(self):
        words = ["udaddy", "-c", 3, "-C", 10, "-S", 100]
        self.check_pair([*words, "-b", self.server.address], [*words, "-s", self.server.address],
                        listens=True)

    def test_cmtime(self):
        self.serve("cmtime", "-c", 20, server_ends=False, listens=True)

    def test_rdma_client_server(self):
        words = ["-p", testing.fresh_port()]
        self.check_pair(["rdma_server", *words],
                        ["rdma_client", "-s", self.server.address, *words])

    def test_rdma_xclient_xserver(self):
        words = ["-p", testing.fresh_port()]
        self.check_pair(["rdma_xserver", *words],
                        ["rdma_xclient", "-s", self.server.address, *words])

    def test_rdma_xclient_xserver_xrc(self):
        self.skip_on_rxe("has no XRC")
        words = ["-c", "x", "-p", testing.fresh_port()]
        self.check_pair(["rdma_xserver", *words],
                        ["rdma_xclient", "-s", self.server.address, *words])

    def test_mckey(self):
        # The receiver ends when it has 10 messages. It does not say when it has joined the group,
        # so senders follow one another until it ends.
        group = ["mckey", "-m", "239.255.7.1", "-C", 10]
        receiver = self.server.spawn([*group, "-b", self.server.address])
        try:
            for _ in range(5):
                status, text = testing.run(
                    self.client, [*group, "-s", "-b", self.client.address], limit=60)
                self.assertEqual(status, 0, f"sender:\n{text}\nreceiver:\n{receiver.output()}")
                if receiver.wait(3) is not None:
                    break
            self.assertEqual(receiver.wait(0), 0, f"receiver:\n{receiver.output()}")
        finally:
            receiver.stop()


placements.multiply(globals(), ConnectionManager, placements.OURS)

if __name__ == "__main__":
    testing.main()
