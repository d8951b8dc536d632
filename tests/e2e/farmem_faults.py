#!/usr/bin/python3
"""What goes wrong around programs whose memory is far, and around the nodes that have it.

The program is real, and what it prints is compared with what it prints natively: whatever the
network, the nodes and the directory do, it is right or it ends with a message that says why.
"""
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import lossy_cable  # noqa: E402

NODE = testing.BUILD / "bin" / "isthmus-memory-node"
PROBE = testing.BUILD / "bin" / "store_probe"
PATIENCE = 20
LIMIT = 60
NO_FAR = 125      # Exit status: far memory cannot be used, or is lost.
PAGE_LOST = 3     # Of store_probe.
SEED = 11
MIB = 1 << 20
LOCAL = 8 * MIB

# Writes DATA bytes and reads them back in order, then here and there. `begun` when all is written.
WORK = """
import hashlib, os, random, sys
size, rounds, jumps = map(int, sys.argv[1:])
random.seed(5)
data = bytearray(size)
for at in range(0, size, 4096):
    data[at:at + 8] = random.getrandbits(64).to_bytes(8, "little")
print("begun", flush=True)
for turn in range(rounds):
    digest = hashlib.sha256(data)
    for jump in range(jumps):
        at = random.randrange(size)
        digest.update(data[at:at + 64])
        data[at] = (data[at] + turn) % 256
print(digest.hexdigest(), flush=True)
os._exit(0)  # To free all objects would be another visit to each page.
"""


def work(size, rounds, jumps):
    return ["/usr/bin/python3", "-c", WORK, str(size), str(rounds), str(jumps)]


def natively(argv):
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


class FarCase(unittest.TestCase):
    def setUp(self):
        testing.need_isthmus()
        testing.need_root("page faults of system calls, network namespaces")

    def node(self, host, port=None, size="64M", options=()):
        """A memory node, and where it is.

        A port whose owner was killed is free when the daemon has noticed, so it is tried again.
        """
        port = port or testing.fresh_port()
        give_up = time.monotonic() + PATIENCE
        while True:
            process = host.spawn([NODE, "--size", size, "--slab", "1M", "--bind", host.address,
                                  "--port", port, "--directory", "none", *options])
            self.addCleanup(process.stop)
            if process.wait_for("serving", PATIENCE):
                return process, f"{host.address}:{port}"
            if "in use" not in process.output() or time.monotonic() > give_up:
                self.fail(process.output())

    def far(self, host, argv, *options, local=LOCAL, far="48M"):
        prefix = host.namespace.prefix if host.namespace else []
        process = testing.Process([*prefix, testing.ISTHMUS, "--socket", host.socket, "run",
                                   "--local-memory", str(local), "--far-memory", far, *options,
                                   "--", *argv])
        self.addCleanup(process.stop)
        return process

    def begun(self, process):
        self.assertTrue(process.wait_for("begun", LIMIT), process.output())

    def check(self, process, argv):
        status = process.wait(LIMIT)
        self.assertEqual(status, 0, process.output())
        self.assertEqual(process.output(), natively(argv))


class Cable(FarCase):
    """Program and node on two hosts, joined by a cable that is not good."""

    def hosts(self, **faults):
        ends = []
        for address in ("10.96.0.1", "10.96.0.2"):
            namespace = testing.Namespace()
            self.addCleanup(namespace.close)
            ends.append((namespace, address))
        cable = lossy_cable.LossyCable(ends, SEED, mtu=9000, **faults)
        self.addCleanup(cable.close)
        hosts = [testing.Host(address, namespace) for namespace, address in ends]
        for host in hosts:
            self.addCleanup(host.close)
        return cable, *hosts

    def test_losses(self):
        cable, near, far_host = self.hosts(loss=0.02, repeat=0.02, reorder=0.02, damage=0.01)
        _, place = self.node(far_host)
        argv = work(14 * MIB, 1, 30)
        self.check(self.far(near, argv, "--memory-node", place, local=16 * MIB), argv)
        self.assertGreater(cable.counts["lose"], 5, "there were no losses")

    def test_delay(self):
        _, near, far_host = self.hosts(loss=0, repeat=0, reorder=0, damage=0, delay=0.05)
        _, place = self.node(far_host)
        argv = work(14 * MIB, 1, 5)
        self.check(self.far(near, argv, "--memory-node", place, local=16 * MIB), argv)


class Nodes(FarCase):
    """Over RoCEv2 on one host: nodes that freeze, come back, and lend to several at once."""

    host = None

    def setUp(self):
        super().setUp()
        if Nodes.host is None:
            Nodes.host = testing.Host(testing.loopback_address(1), channel="roce")
            testing.at_end.callback(Nodes.host.close)

    def probe(self, nodes, mib, replicas, command):
        process = self.host.spawn([PROBE, ",".join(nodes), mib, replicas, command])
        self.addCleanup(process.stop)
        return process

    def test_a_node_frozen_for_a_moment(self):
        node, place = self.node(self.host)
        argv = work(16 * MIB, 4, 200)
        process = self.far(self.host, argv, "--memory-node", place)
        self.begun(process)
        node.signal(signal.SIGSTOP)
        time.sleep(0.4)  # It counts as gone after 1.1 s.
        self.assertIsNone(process.wait(0), "it did not need the node")
        node.signal(signal.SIGCONT)
        self.check(process, argv)

    def test_a_node_that_is_gone_is_named(self):
        for how, reason in ((signal.SIGKILL, "it "), (signal.SIGSTOP, "retry counter")):
            node, place = self.node(self.host)
            process = self.far(self.host, work(16 * MIB, 100, 2000), "--memory-node", place)
            self.begun(process)
            node.signal(how)
            self.assertEqual(process.wait(PATIENCE), NO_FAR, process.output())
            self.assertRegex(process.output(), f"memory node {place} is gone: .*{reason}")
            self.assertIn("far memory is lost: no memory node", process.output())

    def test_a_node_started_again_is_another_one(self):
        node, place = self.node(self.host, size="8M")
        client = self.probe([place], 8, 1, "churn")
        self.assertTrue(client.wait_for("churning", PATIENCE), client.output())
        node.signal(signal.SIGKILL)
        again, _ = self.node(self.host, port=int(place.split(":")[1]), size="8M")
        # Expect: the keys of the first are of no use at the second, and the program is told.
        status = client.wait(PATIENCE)
        self.assertEqual(status, PAGE_LOST, testing.story(f"{status}", client, again))
        self.assertIn(f"memory node {place} is gone", client.output())
        next_one = self.probe([place], 8, 1, "zeros")
        self.assertEqual(next_one.wait(PATIENCE), 0, next_one.output())
        self.assertEqual(next_one.output(), "0 of 2048 slots are not zero\n")

    def test_a_node_started_again_under_a_program_with_copies(self):
        (first, one), (_, other) = self.node(self.host), self.node(self.host)
        argv = work(16 * MIB, 4, 200)
        process = self.far(self.host, argv, "--memory-node", one, "--memory-node", other,
                           "--replicas", "2")
        self.begun(process)
        first.signal(signal.SIGKILL)
        self.node(self.host, port=int(one.split(":")[1]))
        status = process.wait(LIMIT)
        self.assertEqual(status, 0, process.output())
        said = [line for line in process.output().splitlines() if not line.startswith("isthmus:")]
        self.assertEqual(said, natively(argv).splitlines())
        self.assertIn(f"memory node {one} is gone", process.output())

    def test_nodes_that_give_less_than_they_said(self):
        # Each is told that 16 MiB are free on either node; with four at once that is never so.
        places = [self.node(self.host, size="16M")[1] for _ in range(2)]
        clients = [self.probe(places, 8, 1, "churn") for _ in range(4)]
        for client in clients:
            self.assertTrue(client.wait_for("churning", PATIENCE), client.output())
        fifth = self.probe(places, 1, 1, "zeros")
        self.assertEqual(fifth.wait(PATIENCE), 1, fifth.output())
        self.assertIn("2 memory nodes have 0 MiB free together", fifth.output())
        for client in clients:
            client.signal(signal.SIGTERM)
            self.assertEqual(client.wait(PATIENCE), 0, client.output())

    def test_sizes_that_cannot_be(self):
        for size, status, said in (("0", 1, "at least one slab"),
                                   ("much", 2, "'much' is no size"),
                                   ("-5M", 2, "'-5M' is no size"),
                                   ("900T", 2, "more than this machine has")):
            with self.subTest(size=size):
                process = self.host.command("memory", "serve", "--size", size, "--bind",
                                            self.host.address, "--directory", "none")
                self.addCleanup(process.stop)
                self.assertEqual(process.wait(PATIENCE), status, process.output())
                self.assertIn(said, process.output())

    def test_far_memory_that_cannot_be(self):
        for size, said in (("0", "not between 1 and"), ("much", "'much' is no size"),
                           ("9000T", "not between 1 and")):
            with self.subTest(size=size):
                process = self.far(self.host, ["true"], "--memory-node", "10.0.0.1", far=size)
                self.assertEqual(process.wait(PATIENCE), 2, process.output())
                self.assertIn(said, process.output())


class DirectoryAway(FarCase):
    def test_programs_run_on_and_new_ones_wait_for_it(self):
        host = testing.Host(testing.loopback_address(2))
        self.addCleanup(host.close)
        folder = tempfile.TemporaryDirectory(prefix="isthmus-directory-")
        self.addCleanup(folder.cleanup)
        home = pathlib.Path(folder.name, "here")
        home.mkdir()
        directory = str(home / "directory.db")
        node = host.command("memory", "serve", "--size", "128M", "--slab", "1M", "--bind",
                            host.address, "--port", testing.fresh_port(), "--name", "one",
                            "--directory", directory)
        self.addCleanup(node.stop)
        self.until(lambda: "one" in self.listed(directory), "the node is listed")

        argv = work(16 * MIB, 8, 500)
        running = self.far(host, argv, "--directory", directory)
        self.begun(running)
        away = home.rename(home.parent / "away")
        home.touch()  # Nobody can make a new one there.

        # Expect: who runs does not notice, who comes is told what is missing.
        late = self.far(host, ["true"], "--directory", directory)
        self.assertNotEqual(late.wait(PATIENCE), 0, late.output())
        self.assertIn(directory, late.output())
        self.assertTrue(node.wait_for("memory is served all the same", PATIENCE), node.output())
        self.check(running, argv)

        # Back again. Expect: the node is in it, with all of its memory free.
        home.unlink()
        away.rename(home)
        self.until(lambda: self.listed(directory).get("one", {}).get("free") == 128 * MIB,
                   "the node tells the directory again")
        argv = work(12 * MIB, 1, 10)
        self.check(self.far(host, argv, "--directory", directory), argv)

    def listed(self, directory):
        done = subprocess.run([testing.ISTHMUS, "memory", "ls", "--json", "--directory", directory],
                              capture_output=True, text=True, timeout=PATIENCE, check=False)
        return {node["name"]: node for node in json.loads(done.stdout or "[]")}

    def until(self, true, what):
        give_up = time.monotonic() + PATIENCE
        while not true():
            self.assertLess(time.monotonic(), give_up, what)
            time.sleep(0.05)


if __name__ == "__main__":
    testing.main()
