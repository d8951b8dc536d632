#!/usr/bin/python3
"""Memory nodes and the store over them, on one host and between hosts.

Nodes run as `isthmus memory serve` runs them; store_probe writes pages, reads them back and says
what became of them. Whatever dies or freezes: no page has other contents than were written, and
what is lost is said to be lost in bounded time.
"""
import contextlib
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import placements  # noqa: E402

PROBE = testing.BUILD / "bin" / "store_probe"
NODE = testing.BUILD / "bin" / "isthmus-memory-node"
PATIENCE = 20       # Seconds for what takes milliseconds on a machine with nothing else to do.
LOST_SECONDS = 10   # 1.1 s of retries, on a busy machine.
PAGE_LOST = 3       # Exit statuses of store_probe.
WAY = ["same_host", "same_host_roce", "two_loopback", "two_namespaces"]


class WithNodes(placements.Placed):
    def setUp(self):
        self.processes = []
        self.addCleanup(lambda: [process.stop() for process in self.processes])

    def node(self, *options, size="8M", host=None):
        """A memory node, and where it is."""
        host = host or self.server
        port = testing.fresh_port()
        process = host.spawn([NODE, "--size", size, "--slab", "1M", "--bind", host.address,
                              "--port", port, "--directory", "none", *options])
        self.processes.append(process)
        self.assertTrue(process.wait_for("serving", PATIENCE), process.output())
        return process, f"{host.address}:{port}"

    def probe(self, nodes, mib, replicas, command):
        process = self.client.spawn([PROBE, ",".join(nodes), mib, replicas, command])
        self.processes.append(process)
        return process

    def run_probe(self, nodes, mib, replicas, command, limit=60):
        process = self.probe(nodes, mib, replicas, command)
        return process.wait(limit), process.output()

    def churn(self, nodes, mib, replicas):
        process = self.probe(nodes, mib, replicas, "churn")
        self.assertTrue(process.wait_for("churning", PATIENCE), process.output())
        return process

    def finish(self, churning, *nodes):
        """It still works, and has lost nothing."""
        time.sleep(0.3)  # Some rounds more.
        churning.signal(signal.SIGTERM)
        status = churning.wait(PATIENCE)
        self.assertEqual(status, 0, testing.story(f"status {status}", churning, *nodes))

    def until_granted(self, nodes, mib):
        """Tries until the nodes have that much free; what the probe found in it."""
        give_up = time.monotonic() + PATIENCE
        while True:
            status, output = self.run_probe(nodes, mib, 1, "zeros")
            if status != 1 or time.monotonic() > give_up:
                return status, output
            time.sleep(0.1)


class Pages(WithNodes):
    def test_come_back_as_they_were(self):
        node, place = self.node()
        status, output = self.run_probe([place], 8, 1, "check")
        self.assertEqual((status, output), (0, "all 2048 slots are as written\n"), node.output())

    def test_come_back_from_two_copies_on_three_nodes(self):
        places = [self.node()[1] for _ in range(3)]
        status, output = self.run_probe(places, 12, 2, "check")
        self.assertEqual((status, output), (0, "all 3072 slots are as written\n"))

    def test_two_programs_share_a_node(self):
        _, place = self.node()
        both = [self.probe([place], 4, 1, "check") for _ in range(2)]
        for process in both:
            self.assertEqual(process.wait(PATIENCE), 0, process.output())

    def test_a_session_is_closed_to_others_and_open_to_its_own(self):
        node, place = self.node()
        status, output = self.run_probe([place], 1, 1, "sessions")
        self.assertEqual(status, 0, output + node.output())

    def test_each_question_has_its_own_answer(self):
        node, place = self.node()
        status, output = self.run_probe([place], 1, 1, "questions")
        self.assertEqual(status, 0, output + node.output())

    def test_a_node_survives_nonsense(self):
        node, place = self.node()
        status, output = self.run_probe([place], 1, 1, "nonsense")
        self.assertEqual(status, 0, output + node.output())
        status, output = self.run_probe([place], 8, 1, "check")
        self.assertEqual(status, 0, output + node.output())


class Room(WithNodes):
    def test_more_than_there_is_and_nobody_there(self):
        _, place = self.node()
        status, output = self.run_probe([place], 9, 1, "check")
        self.assertEqual(status, 1)
        self.assertIn("8 MiB free", output)
        status, output = self.run_probe([place], 1, 2, "check")
        self.assertEqual(status, 1)
        self.assertIn("2 copies", output)
        status, output = self.run_probe([f"{self.server.address}:1"], 1, 1, "check")
        self.assertEqual(status, 1)
        self.assertIn("nobody serves there", output)

    def test_a_node_that_is_away_is_left_out(self):
        _, place = self.node()
        status, output = self.run_probe([f"{self.server.address}:1", place], 8, 1, "check")
        self.assertEqual(status, 0, output)

    def test_what_a_killed_program_had_is_free_and_zero(self):
        node, place = self.node()
        first = self.churn([place], 8, 1)
        status, output = self.run_probe([place], 1, 1, "zeros")
        self.assertEqual(status, 1, output)
        first.signal(signal.SIGKILL)
        status, output = self.until_granted([place], 8)
        self.assertEqual((status, output), (0, "0 of 2048 slots are not zero\n"), node.output())

    def test_what_a_silent_program_had_is_free_and_lost_to_it(self):
        node, place = self.node("--lease", "500")
        first = self.churn([place], 8, 1)
        first.signal(signal.SIGSTOP)
        status, output = self.until_granted([place], 8)
        self.assertEqual((status, output), (0, "0 of 2048 slots are not zero\n"), node.output())
        first.signal(signal.SIGCONT)
        self.assertEqual(first.wait(LOST_SECONDS), PAGE_LOST, first.output())


class NodeFaults(WithNodes):
    def test_a_killed_node_loses_pages_without_copies(self):
        node, place = self.node()
        client = self.churn([place], 8, 1)
        began = time.monotonic()
        node.signal(signal.SIGKILL)
        self.assertEqual(client.wait(LOST_SECONDS), PAGE_LOST, client.output())
        self.assertLess(time.monotonic() - began, LOST_SECONDS)
        self.assertIn(f"memory node {place} is gone", client.output())

    def test_a_killed_node_loses_nothing_with_copies(self):
        (first, one), (second, other) = self.node(), self.node()
        client = self.churn([one, other], 8, 2)
        first.signal(signal.SIGKILL)
        self.assertTrue(client.wait_for(f"memory node {one} is gone", LOST_SECONDS),
                        client.output())
        self.finish(client, second)

    def test_a_killed_node_may_be_any_and_both_are_the_end(self):
        (first, one), (second, other) = self.node(), self.node()
        client = self.churn([one, other], 8, 2)
        second.signal(signal.SIGKILL)
        self.assertTrue(client.wait_for(f"memory node {other} is gone", LOST_SECONDS),
                        client.output())
        first.signal(signal.SIGKILL)
        self.assertEqual(client.wait(LOST_SECONDS), PAGE_LOST, client.output())

    def test_a_killed_node_is_healed_onto_a_third(self):
        nodes = [self.node(size="16M") for _ in range(3)]
        client = self.churn([place for _, place in nodes], 8, 2)
        for node, place in nodes[:2]:
            node.signal(signal.SIGKILL)
            self.assertTrue(client.wait_for(f"memory node {place} is gone", LOST_SECONDS),
                            client.output())
            if node is nodes[0][0]:
                # Without it, the second loss would be one of pages.
                self.assertTrue(client.wait_for("have their second copy again", PATIENCE),
                                client.output())
        self.finish(client, nodes[2][0])

    def test_a_node_that_ends_says_so(self):
        node, place = self.node()
        client = self.churn([place], 8, 1)
        node.signal(signal.SIGTERM)
        self.assertEqual(node.wait(PATIENCE), 0, node.output())
        self.assertEqual(client.wait(LOST_SECONDS), PAGE_LOST, client.output())

    def test_a_frozen_node_costs_bounded_time(self):
        (first, one), (second, other) = self.node(), self.node()
        alone = self.churn([one], 4, 1)
        copied = self.churn([one, other], 4, 2)
        first.signal(signal.SIGSTOP)
        try:
            if self.placement == "same_host":
                # Its memory can be reached without it.
                self.finish(alone, first)
            else:
                self.assertEqual(alone.wait(LOST_SECONDS), PAGE_LOST, alone.output())
                said = f"memory node {one} is gone: it does not answer, transport retry counter"
                self.assertTrue(copied.wait_for(said, LOST_SECONDS), copied.output())
            self.finish(copied, second)
        finally:
            first.signal(signal.SIGCONT)


for case in (Pages, Room, NodeFaults):
    placements.multiply(globals(), case, WAY)


class Freezing(WithNodes):
    def test_a_node_that_was_frozen_holds_it_against_nobody(self):
        node, place = self.node("--lease", "1000")
        client = self.churn([place], 8, 1)
        node.signal(signal.SIGSTOP)
        time.sleep(2.5)  # Leases end meanwhile, on the clock.
        node.signal(signal.SIGCONT)
        time.sleep(1.5)  # Time to do the wrong thing.
        self.finish(client, node)


placements.multiply(globals(), Freezing, ["same_host"])


class Directory(WithNodes):
    """isthmus memory serve, ls and drain."""

    def setUp(self):
        super().setUp()
        folder = tempfile.TemporaryDirectory(prefix="isthmus-directory-")
        self.addCleanup(folder.cleanup)
        self.directory = f"{folder.name}/directory.db"

    def memory(self, *words):
        return subprocess.run([testing.ISTHMUS, "memory", *map(str, words), "--directory",
                               self.directory], capture_output=True, text=True, timeout=PATIENCE,
                              check=False)

    def listed(self):
        done = self.memory("ls", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return {node["name"]: node for node in json.loads(done.stdout)}

    def until(self, true, what):
        give_up = time.monotonic() + PATIENCE
        while not true():
            self.assertLess(time.monotonic(), give_up, what)
            time.sleep(0.05)

    def serve(self, name, *options):
        port = testing.fresh_port()
        process = self.server.command("memory", "serve", "--size", "8M", "--slab", "1M", "--bind",
                                      self.server.address, "--port", port, "--name", name,
                                      "--directory", self.directory, "--json", *options)
        self.processes.append(process)
        self.assertTrue(process.wait_for("}", PATIENCE), process.output())
        ready = json.loads(process.output().splitlines()[0])
        self.assertEqual((ready["address"], ready["port"]), (self.server.address, port))
        self.until(lambda: name in self.listed(), f"{name} is listed")
        return process, f"{self.server.address}:{port}"

    def test_nodes_are_listed_while_they_serve(self):
        self.assertEqual(self.listed(), {})
        self.assertIn("no memory node", self.memory("ls").stdout)
        first, place = self.serve("first")
        self.serve("second")
        self.assertEqual(sorted(self.listed()), ["first", "second"])
        self.assertIn("8.00 MiB", self.memory("ls").stdout)
        client = self.churn([place], 4, 1)
        self.until(lambda: self.listed()["first"]["free"] == 4 << 20, "what is free is listed")
        self.finish(client)
        self.until(lambda: self.listed()["first"]["free"] == 8 << 20, "it is free again")
        first.signal(signal.SIGTERM)
        self.assertEqual(first.wait(PATIENCE), 0, first.output())
        self.assertEqual(sorted(self.listed()), ["second"])

    def test_a_name_has_one_node(self):
        self.serve("one")
        port = testing.fresh_port()
        other = self.server.command("memory", "serve", "--size", "8M", "--bind",
                                    self.server.address, "--port", port, "--name", "one",
                                    "--directory", self.directory, "--slab", "1M")
        self.processes.append(other)
        self.assertTrue(other.wait_for("another memory node named one", PATIENCE), other.output())
        self.assertNotEqual(self.listed()["one"]["port"], port)

    def test_a_drained_node_lends_no_more(self):
        node, place = self.serve("one")
        client = self.churn([place], 4, 1)
        self.assertEqual(self.memory("drain", "one").returncode, 0)
        self.until(lambda: self.listed()["one"]["state"] == "draining", "it drains")
        status, output = self.run_probe([place], 1, 1, "zeros")
        self.assertEqual(status, 1, output)
        self.finish(client, node)
        self.assertEqual(self.memory("drain", "--wait", "one").returncode, 0)
        self.assertEqual(self.memory("drain", "--undo", "one").returncode, 0)
        self.until(lambda: self.listed()["one"]["state"] == "serving", "it serves again")
        self.assertEqual(self.run_probe([place], 8, 1, "zeros")[0], 0)
        done = self.memory("drain", "nobody")
        self.assertEqual(done.returncode, 1)
        self.assertIn("isthmus memory ls", done.stderr)

    def test_a_node_serves_without_its_directory(self):
        node, place = self.serve("one")
        with contextlib.suppress(FileNotFoundError):
            pathlib.Path(self.directory).unlink()
            pathlib.Path(self.directory).write_text("no database " * 100)
        status, output = self.run_probe([place], 8, 1, "check")
        self.assertEqual(status, 0, output + node.output())


placements.multiply(globals(), Directory, ["same_host"])
# Bases, of no placement.
del WithNodes, Pages, Room, NodeFaults, Freezing, Directory, case

if __name__ == "__main__":
    testing.main()
