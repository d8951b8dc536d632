#!/usr/bin/python3
"""What goes wrong around real programs: bad cables, killed peers, killed daemons, wrong commands.

Each fault has its message or completion status, in bounded time, and no effect on others.
"""
import contextlib
import os
import pathlib
import select
import signal
import stat
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import placements  # noqa: E402

# Timeout 2^14 * 4.096 us, 7 retries, and as much again for a busy machine.
PEER_LOST_SECONDS = 15


def perftest(program, server, client, *options):
    port = testing.fresh_port()
    first, second = ([program, "-d", host.device, "-x", host.gid_index(), "-p", port, "-F",
                      *options] for host in (server, client))
    return first, [*second, server.address]


class BadCable(placements.Placed):
    """Reliable connections complete everything once, with the right content."""

    def pingpong(self, *options):
        # Whoever gets the last message ends at once. Its acknowledgement goes twice; are both lost,
        # then nobody is left to repeat it, and the other side fails with all rounds done: 1 in 100.
        for _ in range(2):
            port = testing.fresh_port()
            server, client = (["ibv_rc_pingpong", "-d", host.device, "-g", host.gid_index(), "-p",
                               port, "-c", *options] for host in (self.server, self.client))
            story = testing.run_pair(self.server, self.client, server,
                                     [*client, self.server.address], 60, True)
            if not story:
                return
            if "iters in" not in story or "retry counter exceeded" not in story:
                break
        self.fail(story)

    def test_rc_pingpong(self):
        self.pingpong("-n", 100)

    def test_rc_pingpong_of_long_messages(self):
        self.pingpong("-n", 10, "-s", 20000)

    def test_rping(self):
        words = ["rping", "-v", "-V", "-C", 20, "-S", 5000, "-a", self.server.address,
                 "-p", testing.fresh_port()]
        self.check_pair([*words, "-s"], [*words, "-c"], limit=60)

    def test_perftest(self):
        for program in ("ib_write_bw", "ib_read_bw", "ib_send_bw", "ib_atomic_bw"):
            with self.subTest(program):
                self.check_pair(*perftest(program, self.server, self.client, "-n", 50,
                                          *([] if "atomic" in program else ["-s", 8192])),
                                limit=60)


class KilledPeer(placements.Placed):
    def test_a_killed_peer_ends_its_peer_and_nobody_else(self):
        self.skip_on_rxe("of kernel 6.1 tries for ever")
        server, client, status = testing.start_pair(
            self.server, self.client, limit=2,
            *perftest("ib_write_bw", self.server, self.client, "-n", 100_000_000, "-N"))
        try:
            self.assertIsNone(status, testing.story("did not connect", client, server))
            server.signal(signal.SIGKILL)
            bystanders = testing.run_pair(
                self.server, self.client,
                *perftest("ib_send_lat", self.server, self.client, "-n", 500))
            self.assertIsNone(bystanders, bystanders)
            status = client.wait(PEER_LOST_SECONDS)
            self.assertIsNotNone(status, f"the writer did not notice\n{client.output()}")
            # IBV_WC_RETRY_EXC_ERR: transport retry counter exceeded.
            self.assertRegex(client.output(), r"Failed status 12\b")
        finally:
            server.stop()
            client.stop()


class KilledDaemon(placements.Placed):
    def test_traffic_outlives_the_daemon_and_the_next_daemon_serves(self):
        server, client, status = testing.start_pair(
            self.server, self.client, limit=2,
            *perftest("ib_write_bw", self.server, self.client, "-D", 6))
        try:
            self.assertIsNone(status, testing.story("did not connect", client, server))
            self.server.kill_daemon()
            self.assertEqual(client.wait(30), 0, testing.story("client", client, server))
            self.assertEqual(server.wait(30), 0, testing.story("server", client, server))

            # Expect: a new daemon at the same socket serves new programs.
            self.server.start_daemon()
            report = testing.run_pair(
                self.server, self.client,
                *perftest("ib_send_lat", self.server, self.client, "-n", 100))
            self.assertIsNone(report, report)
        finally:
            server.stop()
            client.stop()


class AbsentDaemon(placements.Placed):
    """A server that listens when its daemon is killed listens again at the next one."""

    GAP_SECONDS = 2  # Without a daemon: longer than a library's longest pause between two looks.

    def kill_daemon_for_a_while(self):
        self.server.kill_daemon()
        time.sleep(self.GAP_SECONDS)
        self.server.start_daemon()

    def connect_rping(self, server, port):
        """As start_pair does, with a server that is there."""
        give_up = time.monotonic() + testing.START_SECONDS
        while True:
            client = self.client.spawn(["rping", "-c", "-C", 2, "-v", "-a", self.server.address,
                                        "-p", port])
            try:
                if client.wait(10) == 0 or "request" in server.output():
                    return
                self.assertRegex(client.output(), testing.NOT_LISTENING)
                self.assertLess(time.monotonic(), give_up,
                                testing.story("nobody listens", client, server))
            finally:
                client.stop()

    def test_rping(self):
        port = testing.fresh_port()
        server = self.server.spawn(["rping", "-s", "-P", "-v", "-a", self.server.address,
                                    "-p", port])
        try:
            self.connect_rping(server, port)
            self.kill_daemon_for_a_while()
            self.connect_rping(server, port)
        finally:
            server.stop()

    def check_listener(self, how):
        port = testing.fresh_port()
        program = pathlib.Path(__file__).resolve().parent / "cm_listener.py"
        server = self.server.spawn(["/usr/bin/python3", "-B", program, how, self.server.address,
                                    port])
        try:
            self.assertTrue(server.wait_for("listening", testing.START_SECONDS), server.output())
            self.kill_daemon_for_a_while()
            self.connect_rping(server, port)
            self.assertEqual(server.wait(testing.START_SECONDS), 0, server.output())
        finally:
            server.stop()

    def test_a_program_that_blocks_for_an_event(self):
        self.check_listener("block")

    def test_a_program_that_polls_the_descriptor(self):
        self.check_listener("poll")


class EndedDaemon(placements.Placed):
    RESTARTS = 20

    def test_traffic_outlives_many_daemons_and_each_serves(self):
        server, client, status = testing.start_pair(
            self.server, self.client, limit=2,
            *perftest("ib_write_bw", self.server, self.client, "-D", 12))
        try:
            self.assertIsNone(status, testing.story("did not connect", client, server))
            for _ in range(self.RESTARTS):
                self.server.replace_daemon()
                port = testing.fresh_port()
                words = ["rping", "-C", 2, "-a", self.server.address, "-p", port]
                self.check_pair([*words, "-s"], [*words, "-c"])
            self.assertEqual(client.wait(30), 0, testing.story("client", client, server))
            self.assertEqual(server.wait(30), 0, testing.story("server", client, server))
        finally:
            server.stop()
            client.stop()

    def test_one_that_ends_for_good_tells_the_peers(self):
        port = testing.fresh_port()
        words = ["rping", "-a", self.server.address, "-p", port]
        server, client, status = testing.start_pair(
            self.server, self.client, [*words, "-s"], [*words, "-c"], limit=2)
        try:
            self.assertIsNone(status, testing.story("did not connect", client, server))
            self.assertEqual(self.server.end_daemon(), 0)
            self.assertIsNotNone(client.wait(PEER_LOST_SECONDS), client.output())
            self.assertIn("DISCONNECT EVENT", client.output())
        finally:
            server.stop()
            client.stop()
            self.server.start_daemon()


class PrivateDaemon(unittest.TestCase):
    def setUp(self):
        testing.need_isthmus()
        testing.need_programs("ibv_asyncwatch")

    @staticmethod
    def processes_of(socket):
        """The daemon at that socket and its keeper, as descriptors that tell of their end."""
        found = {}
        for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                words = path.read_bytes().split(b"\0")
                if words[0].endswith(b"isthmusd") and socket.encode() in words:
                    found[b" ".join(words[:2])] = os.pidfd_open(int(path.parent.name))
        return found

    def test_it_ends_with_its_killed_clients(self):
        with tempfile.TemporaryDirectory() as folder:
            socket = f"{folder}/private.sock"
            clients = [testing.Process([testing.ISTHMUS, "--socket", socket, "run", "--address",
                                        testing.loopback_address(5), "--", "ibv_asyncwatch", "-d",
                                        "isthmus0"]) for _ in range(2)]
            try:
                for client in clients:
                    self.assertTrue(client.wait_for("async event FD", testing.START_SECONDS),
                                    client.output())
                daemon = self.processes_of(socket)
                self.assertEqual(len(daemon), 2, daemon)
                clients[0].signal(signal.SIGKILL)
                clients[0].wait(5)
                self.assertEqual(select.select(daemon.values(), [], [], 0)[0], [],
                                 "ended under a client")
                clients[1].signal(signal.SIGKILL)
                for name, end in daemon.items():
                    self.assertNotEqual(select.select([end], [], [], testing.START_SECONDS)[0],
                                        [], f"still runs: {name}")
                    os.close(end)
            finally:
                for client in clients:
                    client.stop()


class WrongCommands(unittest.TestCase):
    """`isthmus run` without any daemon: it starts a private one, as in the README."""

    def run_isthmus(self, *words, limit=20):
        with tempfile.TemporaryDirectory() as folder:
            process = testing.Process(
                [testing.ISTHMUS, *words], {"XDG_RUNTIME_DIR": folder,
                                            "ISTHMUS_SOCKET": f"{folder}/private.sock"})
            try:
                return process.wait(limit), process.output()
            finally:
                process.stop()

    def setUp(self):
        testing.need_isthmus()

    def test_an_unknown_program_has_the_status_and_message_of_a_shell(self):
        status, text = self.run_isthmus("run", "--", "no-such-program")
        self.assertEqual(status, 127, text)
        self.assertIn("no-such-program", text)

    def test_a_file_that_cannot_be_run_is_named(self):
        with tempfile.NamedTemporaryFile() as file:
            os.chmod(file.name, stat.S_IRUSR)
            status, text = self.run_isthmus("run", "--", file.name)
        self.assertEqual(status, 126, text)
        self.assertIn(file.name, text)

    def test_no_program_is_a_usage_error(self):
        status, text = self.run_isthmus("run")
        self.assertEqual(status, 2, text)

    def test_the_exit_status_of_the_program_is_passed_on(self):
        status, text = self.run_isthmus("run", "--", "sh", "-c", "exit 42")
        self.assertEqual(status, 42, text)

    def test_a_program_killed_by_a_signal_has_the_status_of_a_shell(self):
        status, text = self.run_isthmus("run", "--", "sh", "-c", "kill -TERM $$")
        self.assertIn(status, (-signal.SIGTERM, 128 + signal.SIGTERM), text)


placements.multiply(globals(), BadCable, ("lossy_cable",))
placements.multiply(globals(), KilledPeer, placements.OURS)
if "ISTHMUS_PLACEMENTS" not in os.environ:
    placements.multiply(globals(), KilledDaemon, ("same_host", "same_host_roce", "two_namespaces"))
    placements.multiply(globals(), AbsentDaemon, ("same_host", "two_namespaces"))
    placements.multiply(globals(), EndedDaemon, ("same_host", "two_namespaces"))

if __name__ == "__main__":
    testing.main()
