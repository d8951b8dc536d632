"""Hosts, network namespaces and programs for the tests that run Isthmus as a user runs it.

A Host is a place where a verbs program can run: a daemon of ours on a loopback address or in a
network namespace, or a soft-RoCE guest (conformance/rxe_guest.py). A test talks to a Host through
spawn() and gid_index() alone, so the same test judges every pair of places.

A test program ends with main(): like unittest.main(), and every skip is printed with its reason
on a line `skip: NAME: REASON`, which tools/run_tests collects.
"""
import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

SOURCE = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("ISTHMUS_BUILD", SOURCE / "build" / "release")).resolve()
ISTHMUS = BUILD / "bin" / "isthmus"
ISTHMUSD = BUILD / "bin" / "isthmusd"
START_SECONDS = 10  # For a daemon to answer, or a server to listen, on a busy two-core machine.
NOTHING_RAN = 77    # Exit status that ctest reports as "skipped" (SKIP_RETURN_CODE).
at_end = contextlib.ExitStack()  # What tests share; closed by main().
closing = contextlib.closing


def need_programs(*names):
    """Skips the calling test when a program it runs is not installed."""
    for name in names:
        if not shutil.which(name):
            raise unittest.SkipTest(f"{name} is not installed")


def need_root(why):
    if os.geteuid() != 0:
        raise unittest.SkipTest(f"needs root: {why}")


def need_isthmus():
    for program in (ISTHMUS, ISTHMUSD):
        if not program.exists():
            raise RuntimeError(f"{program} is not built; run ./dev build release")


_libc = ctypes.CDLL(None, use_errno=True)


def _end_with_parent():
    _libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Process:
    """A running program whose output, of both streams, is kept for the report of a failure.

    It does not outlive a test program that is killed.
    """

    def __init__(self, argv, env=None, title=None):
        self.title = title or " ".join(map(str, argv))
        self._log = tempfile.TemporaryFile()
        self._popen = subprocess.Popen(
            [str(word) for word in argv], stdin=subprocess.DEVNULL, stdout=self._log,
            stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_end_with_parent,
            env={**os.environ, **(env or {})})

    def output(self):
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="replace")

    def wait(self, limit):
        """The exit status, or None when `limit` seconds passed and it still runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._popen.wait(limit)
        return None

    def signal(self, number):
        """Reaches the whole session: `isthmus run` and the program it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, number)

    def wait_for(self, text, limit):
        """Whether it printed `text` before `limit` seconds passed or it ended."""
        give_up = time.monotonic() + limit
        while text not in self.output():
            if time.monotonic() > give_up or self.wait(0.02) is not None:
                return text in self.output()
        return True

    def stop(self):
        if self._popen.poll() is None:
            self.signal(signal.SIGTERM)
            if self.wait(2) is None:
                self.signal(signal.SIGKILL)
        self._popen.wait()
        self._log.close()


class Namespace:
    """A network namespace of our own; `prefix` before a command line runs it inside."""

    _count = 0

    def __init__(self):
        need_root("network namespaces")
        need_programs("ip")
        if Namespace._count == 0:
            self._delete_leftovers()
        Namespace._count += 1
        self.name = f"judges-{os.getpid()}-{Namespace._count}"
        subprocess.run(["ip", "netns", "add", self.name], check=True)
        self.prefix = ["ip", "netns", "exec", self.name]
        self.ip("link", "set", "lo", "up")

    @staticmethod
    def _delete_leftovers():
        """Those of test programs that were killed; a namespace's name holds the program's pid."""
        for path in pathlib.Path("/run/netns").glob("judges-*-*"):
            if not pathlib.Path("/proc", path.name.split("-")[1]).exists():
                subprocess.run(["ip", "netns", "delete", path.name], check=False)

    def ip(self, *words):
        subprocess.run(["ip", "-n", self.name, *map(str, words)], check=True)

    @contextlib.contextmanager
    def visit(self):
        """The calling thread is in the namespace: the sockets it opens belong there for ever."""
        with open("/proc/thread-self/ns/net", "rb") as home:
            self._enter(f"/run/netns/{self.name}")
            try:
                yield
            finally:
                self._enter(f"/proc/self/fd/{home.fileno()}")

    @staticmethod
    def _enter(path):
        with open(path, "rb") as target:
            if _libc.setns(target.fileno(), 0x40000000) != 0:  # CLONE_NEWNET
                raise OSError(ctypes.get_errno(), f"setns {path}")

    def skip_address_probes(self):
        """Interfaces made from now on can use their IPv6 addresses at once, not after a second."""
        path = pathlib.Path("/proc/sys/net/ipv6/conf/default/accept_dad")
        with self.visit():
            if path.exists():
                path.write_text("0")

    def close(self):
        subprocess.run(["ip", "netns", "delete", self.name], check=False)


def connect_namespaces(first, second, first_address, second_address, mtu=1500):
    """Joins two namespaces by a cable, addresses of one /24 on its ends, both named eth0."""
    first.skip_address_probes()
    second.skip_address_probes()
    first.ip("link", "add", "eth0", "mtu", mtu, "type", "veth", "peer", "name", "eth0", "mtu", mtu,
             "netns", second.name)
    for namespace, address in ((first, first_address), (second, second_address)):
        namespace.ip("address", "add", f"{address}/24", "dev", "eth0")
        namespace.ip("link", "set", "eth0", "up")


class Host:
    """One isthmusd and the programs attached to it."""

    def __init__(self, address, namespace=None, channel=None, label=None):
        need_isthmus()
        self.address = address
        self.device = "isthmus0"
        self.label = label or f"isthmus {address}"
        self.namespace = namespace
        self._folder = tempfile.TemporaryDirectory(prefix="isthmus-test-")
        self.socket = f"{self._folder.name}/d.sock"
        self._env = {"ISTHMUS_CHANNEL": channel} if channel else {}
        self._gid_index = None
        self._prefix = namespace.prefix if namespace else []
        self._daemon = None
        self.start_daemon()

    def start_daemon(self):
        self._launch_daemon()
        self._wait_daemon()

    def _launch_daemon(self):
        self._daemon = Process([*self._prefix, ISTHMUSD, "--address", self.address,
                                "--socket", self.socket], self._env)

    def _wait_daemon(self):
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._daemon.wait(0.02) is not None or time.monotonic() > deadline:
                report = self._daemon.output()
                self.close()
                raise RuntimeError(f"isthmusd did not start at {self.address}\n{report}")

    def _answers(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
            return probe.connect_ex(self.socket) == 0

    def spawn(self, argv, **env):
        return Process([*self._prefix, ISTHMUS, "--socket", self.socket, "run", "--", *argv],
                       {**self._env, **env}, f"{self.label}: {' '.join(map(str, argv))}")

    def command(self, *words):
        """`isthmus WORDS` for this host's daemon."""
        return Process([*self._prefix, ISTHMUS, "--socket", self.socket, *words])

    def listen_count(self):
        """How often a program has begun to listen for connection requests."""
        done = subprocess.run([*self._prefix, ISTHMUS, "--socket", self.socket, "status", "--json"],
                              capture_output=True, check=True, timeout=START_SECONDS)
        return json.loads(done.stdout)["counters"]["cm_listens"]

    def gid_index(self):
        """The index of this host's IPv4 GID, as ibv_devinfo shows it."""
        if self._gid_index is None:
            self._gid_index = find_gid_index(self)
        return self._gid_index

    def kill_daemon(self):
        self._daemon.signal(signal.SIGKILL)
        self._daemon.stop()

    def replace_daemon(self):
        """As an upgrade does, but the next daemon is started before the first has ended."""
        first = self._daemon
        first.signal(signal.SIGTERM)
        self._launch_daemon()
        status = first.wait(START_SECONDS)
        report = first.output()
        first.stop()
        if status != 0:
            raise RuntimeError(f"isthmusd ended with status {status} after SIGTERM\n{report}")
        self._wait_daemon()

    def end_daemon(self):
        """For good."""
        self._daemon.signal(signal.SIGINT)
        status = self._daemon.wait(START_SECONDS)
        self._daemon.stop()
        return status

    def daemon_output(self):
        return self._daemon.output()

    def close(self):
        self._daemon.stop()
        self._folder.cleanup()


def run(host, argv, limit=30, **env):
    """Runs a program on `host` to its end; returns its status (None: took too long) and output."""
    process = host.spawn(argv, **env)
    try:
        return process.wait(limit), process.output()
    finally:
        process.stop()


def find_gid_index(host):
    status, text = run(host, ["ibv_devinfo", "-v", "-d", host.device])
    wanted = re.search(r"GID\[\s*(\d+)\]:\s+::ffff:" + re.escape(host.address) + r"\b", text)
    if status != 0 or not wanted:
        raise RuntimeError(f"{host.label} has no GID for {host.address}:\n{text}")
    return int(wanted[1])


# What clients print while their server is not listening yet; nothing else is tried again.
NOT_LISTENING = re.compile(
    r"Couldn't connect to|Connection refused|RDMA_CM_EVENT_REJECTED|event: RDMA_CM_EVENT_(REJ|UNR)"
    r"|Unexpected CM event|connect error -1|Failed to connect|rdma_connect: |Couldn't connect"
    r"|rpoll: ")


def spawn_listener(host, argv):
    """A server that has called rdma_listen when this returns, where the daemon is ours."""
    if not isinstance(host, Host):
        return host.spawn(argv)
    before = host.listen_count()
    server = host.spawn(argv)
    give_up = time.monotonic() + START_SECONDS
    while host.listen_count() == before and time.monotonic() < give_up:
        if server.wait(0.02) is not None:
            break
    return server


def start_pair(server_host, client_host, server_argv, client_argv, limit, listens=False):
    """Starts a server and its client; returns both and the client's status after `limit` seconds.

    No server says when it listens, so a client that finds none is started again until
    START_SECONDS have passed. The caller stops both.

    `listens`: the client waits for the server's rdma_listen. Needed where a client makes several
    connections: one that comes too early is refused the first, is granted the second, gives up,
    and the server ends because nobody is left whom it could accept.
    """
    server = spawn_listener(server_host, server_argv) if listens else server_host.spawn(server_argv)
    give_up = time.monotonic() + START_SECONDS
    while True:
        client = client_host.spawn(client_argv)
        status = client.wait(limit)
        if (status in (0, None) or time.monotonic() > give_up
                or not NOT_LISTENING.search(client.output()) or server.wait(0.1) is not None):
            return server, client, status
        client.stop()
        if "-R" in server_argv:
            # perftest closes its listener after a first connection and opens another for the
            # second, for which a quick client comes too early. A server left there is no use to
            # the next client; nothing says when a new one listens.
            server.stop()
            server = server_host.spawn(server_argv)
            time.sleep(0.5)


def run_pair(server_host, client_host, server_argv, client_argv, limit=30, server_ends=True,
             listens=False):
    """Runs a server and its client; returns None, or the story of what went wrong.

    `server_ends`: the server exits by itself, with status 0.
    """
    server, client, status = start_pair(server_host, client_host, server_argv, client_argv, limit,
                                        listens)
    try:
        if status != 0:
            problem = "took too long" if status is None else f"exit status {status}"
            return story(f"client: {problem}", client, server)
        if server_ends:
            status = server.wait(limit)
            if status != 0:
                problem = "did not end" if status is None else f"exit status {status}"
                return story(f"server: {problem}", client, server)
        return None
    finally:
        server.stop()
        client.stop()


def story(problem, *processes):
    lines = [problem]
    for process in processes:
        text = process.output().rstrip() or "(printed nothing)"
        lines.append(f"--- {process.title}\n{text[-3000:]}")
    return "\n".join(lines)


_port_lock = threading.Lock()
_next_port = 20000 + os.getpid() % 8000 * 5


def fresh_port():
    """A TCP port for the two sides' exchange; several test programs may run at once."""
    global _next_port
    with _port_lock:
        while True:
            _next_port = _next_port + 1 if _next_port < 60000 else 20000
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind(("", _next_port))
                return _next_port


def loopback_address(number):
    """An address of 127/8 that other test programs of this machine do not use now."""
    return f"127.{1 + os.getpid() // 250 % 250}.{os.getpid() % 250}.{number}"


class _Result(unittest.TextTestResult):
    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.stream.writeln(f"skip: {test.id()}: {reason}")


def main():
    runner = unittest.TextTestRunner(stream=sys.stdout, resultclass=_Result, verbosity=2)
    with at_end:
        program = unittest.main(module="__main__", exit=False, testRunner=runner)
    result = program.result
    if not result.wasSuccessful():
        sys.exit(1)
    sys.exit(NOTHING_RAN if result.skipped and len(result.skipped) >= result.testsRun else 0)
