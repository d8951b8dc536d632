"""Far memory beside its peers: zram swap under a memory cgroup, and plenty of local memory.

One load, far_memory (its file says what it does), three programs, and Redis under redis_load. Each
peer runs the same binary on the same data; what differs is who moves the pages.
"""
import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time

import isthmus_testing as testing

LIMIT = 300
MEGABYTES = 256
LOCAL_PERCENT = 25
CGROUP = pathlib.Path("/sys/fs/cgroup/memory")
ZRAM = pathlib.Path("/sys/block/zram0")


class Missing(Exception):
    """A peer or a permission that is not there; the row says so."""


def dirty_line_rows(row):
    """Tracking at the granularity of cache lines beside whole pages and beside pagemap."""
    text = []

    def take(pattern):
        if not text:
            done = subprocess.run([testing.BUILD / "bin" / "dirty_lines"], check=True, text=True,
                                  capture_output=True, timeout=LIMIT)
            text.append(done.stdout)
        found = re.search(pattern, text[0])
        if not found:
            raise Missing("this kernel has no PAGEMAP_SCAN")
        return float(found.group(1))

    def fresh(pattern):
        text.clear()
        return take(pattern)

    return [
        row("dirty-bytes", "dirty lines, 10,000 random 8-byte writes, bytes", "B", 20.0, False,
            lambda: fresh(r" 10000 writes: lines (\d+)"),
            {"whole pages": lambda: take(r" 10000 writes: .* pages (\d+)")}),
        row("dirty-scan", "1 GiB tracked, 1 % dirty, which pages", "ms", 5.0, False,
            lambda: fresh(r"scan ([\d.]+) ms"),
            {"/proc/self/pagemap": lambda: take(r"pagemap ([\d.]+) ms")}),
    ]


class MemoryNode:
    """A memory node on a host, in no directory."""

    def __init__(self, host, port=7471):
        self.address = f"{host.address}:{port}"
        self._process = host.spawn([testing.BUILD / "bin" / "isthmus-memory-node", "--size", "2G",
                                    "--bind", host.address, "--port", port, "--directory",
                                    "none", "--json"])
        if not self._process.wait_for("address", 20):
            raise RuntimeError(f"no memory node\n{self._process.output()}")

    def close(self):
        self._process.stop()


class Zram:
    """Swap in compressed memory, for one cgroup at a time."""

    def __enter__(self):
        if os.geteuid() != 0:
            raise Missing("zram swap needs root")
        if not ZRAM.exists() or not CGROUP.exists():
            raise Missing("no zram device, or no memory cgroup (v1)")
        if (ZRAM / "disksize").read_text().strip() != "0":
            raise Missing("zram0 is in use")
        (ZRAM / "comp_algorithm").write_text("lz4")
        (ZRAM / "disksize").write_text("2G")
        for argv in (["mkswap", "/dev/zram0"], ["swapon", "/dev/zram0"]):
            subprocess.run(argv, check=True, capture_output=True)
        return self

    def __exit__(self, *unused):
        subprocess.run(["swapoff", "/dev/zram0"], check=False)
        (ZRAM / "reset").write_text("1")

    @staticmethod
    def run(limit_bytes, argv, **options):
        group = CGROUP / f"isthmus-bench-{os.getpid()}"
        group.mkdir()
        try:
            (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
            enter = f"echo $$ > {group}/cgroup.procs; exec \"$@\""
            return subprocess.run(["sh", "-c", enter, "sh", *map(str, argv)], check=False,
                                  timeout=LIMIT, **options)
        finally:
            for _ in range(100):
                with contextlib.suppress(OSError):
                    group.rmdir()
                    break
                time.sleep(0.05)  # The kernel says only by refusing that pages are still charged.


def phases_of(text):
    return {line["phase"]: line for line in map(json.loads, text.splitlines())}


class Load:
    """far_memory under one system; each run gives a value to every row that asks."""

    def __init__(self, run):
        self._run = run
        self._values = {}

    def take(self, phase, number="mean_ns"):
        if not self._values.get(phase):
            for name, line in phases_of(self._run()).items():
                self._values.setdefault(name, []).append(line)
        if not self._values.get(phase):
            raise Missing("it did not live to the end")
        return self._values[phase].pop(0)[number]


def far_memory(*words):
    return [testing.BUILD / "bin" / "far_memory", "--megabytes", MEGABYTES, "--local",
            LOCAL_PERCENT, "read-sequential", "read-random", "modify-random", "at-hand", *words]


def load_on(host, node):
    def run():
        process = host.spawn(far_memory("--node", node.address))
        status, text = process.wait(LIMIT), process.output()
        process.stop()
        if status != 0:
            raise RuntimeError(f"far_memory: status {status}\n{text}")
        return text
    return Load(run)


def load_on_zram():
    def run():
        with Zram() as zram:
            limit = MEGABYTES * LOCAL_PERCENT // 100 << 20
            return zram.run(limit, far_memory("--plain"), capture_output=True, text=True).stdout
    return Load(run)


def floors():
    text = subprocess.run([testing.BUILD / "bin" / "uffd_floor"], check=True, text=True,
                          capture_output=True, timeout=LIMIT).stdout
    return text


def load_rows(row):
    """Rows of the load; `row` makes one."""
    here = testing.at_end.enter_context(
        contextlib.closing(testing.Host(testing.loopback_address(23))))
    node = testing.at_end.enter_context(contextlib.closing(MemoryNode(here)))
    same, zram, floor = load_on(here, node), load_on_zram(), Load(floors)
    rows = [
        row("far-random", "far memory, node on the same host, random read", "ns", 1.4, False,
            lambda: same.take("read-random"), {"zram swap": lambda: zram.take("read-random")}),
        row("far-sequential", "the same, sequential read", "ns", 3.0, False,
            lambda: same.take("read-sequential"),
            {"zram swap": lambda: zram.take("read-sequential")}),
        row("far-modify", "the same, random read-modify-write", "ns", 1.2, False,
            lambda: same.take("modify-random"), {"zram swap": lambda: zram.take("modify-random")}),
        row("far-at-hand", "fault, page at hand, median", "ns", 10.0, False,
            lambda: same.take("at-hand", "median_ns"),
            {"userfaultfd, handler on another core":
             lambda: floor.take("floor-message-other-processor", "median_ns")},
            {"kernel: SIGBUS and UFFDIO_COPY": lambda: floor.take("floor-signal", "median_ns")}),
    ]
    if os.geteuid() == 0:
        rows += network_rows(row)
    return rows


def network_rows(row):
    first, second = (testing.at_end.enter_context(contextlib.closing(testing.Namespace()))
                     for _ in range(2))
    testing.connect_namespaces(first, second, "10.97.0.1", "10.97.0.2", mtu=9000)
    hosts = [testing.at_end.enter_context(contextlib.closing(testing.Host(address, namespace)))
             for address, namespace in (("10.97.0.1", first), ("10.97.0.2", second))]
    node = testing.at_end.enter_context(contextlib.closing(MemoryNode(hosts[0])))
    far = load_on(hosts[1], node)
    absent = {"umap over TCP, FUSE over TCP": absent_peer}
    return [
        row("far-network-random", "node in another namespace, random read", "ns", 2.0, False,
            lambda: far.take("read-random"), absent),
        row("far-network-sequential", "the same, sequential read", "ns", 6.0, False,
            lambda: far.take("read-sequential"), absent),
    ]


def absent_peer():
    raise Missing("not packaged by Debian; docs/benchmarks.md has it from a run outside")


DICTIONARY = """
import random
random.seed(1)
d = {i: str(i) * 3 for i in range(600000)}
print(sum(len(d[random.randrange(600000)]) for _ in range(200000)))
"""
DATABASE = """
import random, sqlite3
random.seed(1)
db = sqlite3.connect(':memory:')
db.execute('create table t (k integer primary key, v text)')
db.executemany('insert into t values (?, ?)', ((i, '%0200x' % random.getrandbits(800))
                                                for i in range(300000)))
db.execute('create index i on t (v)')
find = 'select v from t where k = ?'
total = sum(len(db.execute(find, (random.randrange(300000),)).fetchone()[0])
            for _ in range(20000))
print(total, db.execute('pragma integrity_check').fetchone()[0])
"""


class Program:
    """A program, how much memory it takes by itself, and what it prints."""

    def __init__(self, name, argv):
        self.name, self.argv = name, [str(word) for word in argv]
        _, self.right, self.peak_bytes = self.timed(self.argv)

    def timed(self, argv, **options):
        start = time.monotonic()
        with tempfile.TemporaryFile() as out:
            process = subprocess.Popen(argv, stdout=out, env={**os.environ, "LC_ALL": "C"},
                                       **options)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            seconds = time.monotonic() - start
            out.seek(0)
            return seconds, (process.returncode, out.read()), usage.ru_maxrss * 1024

    def native(self):
        return self.timed(self.argv)[0]

    def far(self, host, node, percent, faults="signal"):
        local = max(self.peak_bytes * percent // 100, 8 << 20)
        argv = [testing.ISTHMUS, "--socket", host.socket, "run", "--local-memory", local,
                "--far-memory", "1G", "--memory-node", node.address, "--faults", faults, "--",
                *self.argv]
        seconds, found, _ = self.timed([str(word) for word in argv])
        if found != self.right:
            raise RuntimeError(f"{self.name}: another result than by itself: {found[0]}")
        return seconds

    def on_zram(self, percent):
        with Zram() as zram:
            start = time.monotonic()
            done = zram.run(self.peak_bytes * percent // 100, self.argv, capture_output=True,
                            env={**os.environ, "LC_ALL": "C"})
            if (done.returncode, done.stdout) != self.right:
                raise Missing(f"killed for lack of memory (status {done.returncode})")
            return time.monotonic() - start


def program_rows(row):
    """sort, SQLite and Python with half of their memory here."""
    host = testing.at_end.enter_context(
        contextlib.closing(testing.Host(testing.loopback_address(24))))
    node = testing.at_end.enter_context(contextlib.closing(MemoryNode(host)))
    lines = pathlib.Path(testing.at_end.enter_context(tempfile.TemporaryDirectory())) / "lines"
    numbers = random.Random(5)
    with lines.open("w", encoding="ascii") as file:
        for index in range(1_500_000):
            file.write(f"{numbers.getrandbits(220):x} {index}\n")
    programs = [Program("sort", ["sort", "-S", "300M", "--parallel=1", lines]),
                Program("sqlite", [sys.executable, "-c", DATABASE]),
                Program("python", [sys.executable, "-c", DICTIONARY])]
    return [row(f"far-{program.name}", f"{program.name}, half of its memory far", "s", 0.4, False,
                lambda program=program: program.far(host, node, 50),
                {"all local": program.native},
                {"by message": lambda program=program: program.far(host, node, 50, "message"),
                 "zram swap": lambda program=program: program.on_zram(50)})
            for program in programs]


class Redis:
    """A server filled with values of 1 KiB and asked by redis_load; `wrap` makes it far.

    On one processor, the load on the other: else chance decides which half of the speed it is.
    """

    KEYS = 150_000
    PHASES = ("get-uniform", "get-zipf", "set-uniform", "set-zipf")

    def __init__(self, wrap):
        for program in ("redis-check-rdb", "redis-cli"):
            if not shutil.which(program):
                raise Missing(f"{program} is not installed")
        self._port = testing.fresh_port()
        self._folder = tempfile.TemporaryDirectory(prefix="isthmus-bench-")
        # The same program as the server, in a package that starts none.
        server = pathlib.Path(self._folder.name) / "redis-server"
        server.symlink_to(shutil.which("redis-check-rdb"))
        argv = wrap([server, "--port", self._port, "--bind", "127.0.0.1", "--save", ""])
        self._process = testing.Process(["taskset", "-c", "0", *argv])

    def __enter__(self):
        if not self._process.wait_for("Ready to accept connections", 20):
            raise RuntimeError(f"no Redis\n{self._process.output()}")
        self.load("fill")
        return self

    def __exit__(self, *unused):
        self._process.stop()
        self._folder.cleanup()

    def load(self, *phases):
        argv = ["taskset", "-c", "1", testing.BUILD / "bin" / "redis_load", str(self._port),
                "--keys", str(self.KEYS), *phases]
        return subprocess.run(argv, check=True, text=True, timeout=LIMIT,
                              stdout=subprocess.PIPE).stdout

    def used_bytes(self):
        text = subprocess.run(["redis-cli", "-p", str(self._port), "INFO", "memory"], check=True,
                              text=True, stdout=subprocess.PIPE, timeout=LIMIT).stdout
        return int(re.search(r"used_memory:(\d+)", text)[1])


class RedisPair:
    """The same server with all of its memory here, and with half of what it uses there."""

    def __init__(self, host, node):
        self._host, self._node = host, node
        self._used_bytes = 0
        self.local, self.far = Load(self._run_local), Load(self._run_far)

    def _run_local(self):
        with Redis(lambda argv: argv) as server:
            self._used_bytes = server.used_bytes()
            return server.load(*Redis.PHASES)

    def _run_far(self):
        if not self._used_bytes:
            with Redis(lambda argv: argv) as server:
                self._used_bytes = server.used_bytes()
        far = [testing.ISTHMUS, "--socket", self._host.socket, "run", "--local-memory",
               self._used_bytes // 2, "--far-memory", "1G", "--memory-node", self._node.address,
               "--"]
        with Redis(lambda argv: [*far, *argv]) as server:
            return server.load(*Redis.PHASES)


def redis_rows(row):
    """GET and SET of values of 1 KiB, 50 clients, half of the memory far."""
    host = testing.at_end.enter_context(
        contextlib.closing(testing.Host(testing.loopback_address(25))))
    node = testing.at_end.enter_context(contextlib.closing(MemoryNode(host)))
    pair = RedisPair(host, node)
    return [row(f"far-redis-{phase}", f"Redis {phase.replace('-', ' ')}, half of its memory far",
                "/s", 0.85 if phase.endswith("zipf") else 0.6, True,
                lambda phase=phase: pair.far.take(phase, "per_second"),
                {"all local": lambda phase=phase: pair.local.take(phase, "per_second")})
            for phase in Redis.PHASES]
