#!/usr/bin/python3
"""rsockets: rdma-core's rstream, riostream and rcopy, in every placement."""
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import placements  # noqa: E402


class Rsockets(placements.Placed):
    def stream(self, program, *options, server_options=()):
        words = [program, "-p", testing.fresh_port(), "-S", 16384, "-C", 50, "-I", 1, *options]
        self.check_pair([*words, *server_options], [*words, "-s", self.server.address])

    def test_rstream(self):
        self.stream("rstream", "-T", "v")

    def test_rstream_blocking(self):
        self.stream("rstream", "-T", "b", "-T", "v")

    def test_rstream_polling(self):
        # The server alone: a client that polls takes the hang-up after the last byte for an error
        # when the server ends first, on rxe too.
        self.stream("rstream", "-T", "v", server_options=("-T", "a"))

    def test_rstream_nonblocking(self):
        self.stream("rstream", "-T", "n", "-T", "v")

    def test_rstream_forking_server(self):
        self.stream("rstream", "-T", "f", "-T", "v")

    def test_riostream(self):
        self.stream("riostream", "-T", "v")

    def test_rcopy(self):
        # The server serves for ever.
        self.skip_on_rxe("guests see this machine's files read-only")
        port = testing.fresh_port()
        with tempfile.TemporaryDirectory() as folder:
            source, copy = pathlib.Path(folder, "source"), pathlib.Path(folder, "copy")
            source.write_bytes(os.urandom(3_000_000))
            self.check_pair(
                ["rcopy", "-p", port],
                ["rcopy", source, f"{self.server.address}:{copy}", "-p", port], server_ends=False)
            self.assertEqual(source.read_bytes(), copy.read_bytes())


placements.multiply(globals(), Rsockets, placements.OURS)

if __name__ == "__main__":
    testing.main()
