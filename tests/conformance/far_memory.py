#!/usr/bin/python3
"""Real programs whose memory is far do what they do natively, byte for byte.

Each program runs once as it is, then with 100, 50 and 25% of the memory that it used there, the
rest on a memory node of the same host. What it prints and writes must be equal. The stress program
checks the content of every page itself, under eviction, signals and fork.
"""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
NODE = testing.BUILD / "bin" / "isthmus-memory-node"
PATIENCE = 20
LIMIT = 240        # Seconds for a program at 25% on a busy machine; natively it takes one.
NO_FAR = 125       # Exit status: far memory could not be used.
MIB = 1 << 20
LEAST_LOCAL = 8 * MIB
FAR = "768M"
# Percent of what it used natively, and who serves its faults.
RUNS = ((100, "message"), (50, "message"), (25, "message"), (50, "signal"), (25, "signal"))

PYTHON_DICTIONARY = """
import hashlib, random
random.seed(7)
table = {}
for i in range(200000):
    table['key %d' % i] = 'value %d' % (i * 7)
digest = hashlib.sha256()
for i in range(40000):
    digest.update(table['key %d' % random.randrange(200000)].encode())
for key in sorted(table)[::100]:
    digest.update(key.encode())
print(digest.hexdigest(), len(table))
"""

SQLITE_SCRIPT = """
create table t(a integer primary key, b text, c int);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 200000)
  insert into t select i, hex(i * 7919) || 'abcdefghijklmnopqrstuvwxyz', (i * 31) % 1009 from n;
create index t_by_c on t(c, b);
select count(*), sum(c), max(b) from t;
delete from t where c % 3 = 0;
pragma integrity_check;
select c, count(*), min(b), sum(a) from t group by c order by 2 desc, 1;
"""


def sort_input(folder):
    path = folder / "lines"
    state = 12345
    with open(path, "w", encoding="ascii") as file:
        for number in range(500_000):
            state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
            file.write(f"{state:016x} {number} {state >> 7:032x}\n")
    return path


def source_input(folder):
    path = folder / "large.c"
    with open(path, "w", encoding="ascii") as file:
        for number in range(1200):
            file.write(f"int f{number}(int x) {{ int s = 0; for (int i = 0; i < x; i++) "
                       f"{{ s += i * {number + 3}; if (s & {number + 1}) s ^= x; }} return s; }}\n")
    return path


class Native:
    """What a program does as it is: its output, and the most memory that it used."""

    def __init__(self, argv, **options):
        done = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
        self.output = done.stdout.read()
        _, status, usage = os.wait4(done.pid, 0)
        done.returncode = os.waitstatus_to_exitcode(status)
        self.status = done.returncode
        self.peak = usage.ru_maxrss * 1024


class WithNode(unittest.TestCase):
    """One daemon and one memory node, for all tests."""

    host = None

    @classmethod
    def setUpClass(cls):
        testing.need_isthmus()
        testing.need_root("page faults of system calls")
        if cls.host:
            return
        host = testing.Host("127.0.0.1")
        testing.at_end.callback(host.close)
        port = testing.fresh_port()
        node = host.spawn([NODE, "--size", "2G", "--bind", "127.0.0.1", "--port", port,
                           "--directory", "none"])
        testing.at_end.callback(node.stop)
        if not node.wait_for("serving", PATIENCE):
            raise RuntimeError(node.output())
        WithNode.address = f"127.0.0.1:{port}"
        folder = tempfile.TemporaryDirectory(prefix="isthmus-far-")
        testing.at_end.callback(folder.cleanup)
        WithNode.folder = pathlib.Path(folder.name)
        WithNode.host = host

    def far_argv(self, local_bytes, argv, far=FAR, faults="auto"):
        return [testing.ISTHMUS, "--socket", self.host.socket, "run", "--local-memory",
                str(local_bytes), "--far-memory", far, "--memory-node", self.address, "--faults",
                faults, "--", *argv]

    def far(self, local_bytes, argv, far=FAR, faults="auto", **options):
        done = subprocess.run(self.far_argv(local_bytes, argv, far, faults), stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=LIMIT, check=False, **options)
        return done.returncode, done.stdout


    def run_and_look(self, argv, text, last, **options):
        """Runs a program that waits for its input after it has said `last`.

        Returns its status, its output, and the memory of its own that it had here then: neither
        files nor what it shares, such as a memory node's.
        """
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=said,
                                       stderr=subprocess.STDOUT, **options)
            try:
                process.stdin.write(text.encode())
                process.stdin.flush()
                give_up = time.monotonic() + LIMIT
                while last not in self.read_all(said) and process.poll() is None:
                    self.assertLess(time.monotonic(), give_up, self.read_all(said)[-2000:])
                    time.sleep(0.02)
                self.assertIsNone(process.poll(), self.read_all(said)[-2000:])
                status = pathlib.Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
                private = int(re.search(r"RssAnon:\s+(\d+) kB", status)[1])
                with contextlib.suppress(BrokenPipeError):
                    process.communicate(b"\n", LIMIT)
            finally:
                process.kill()
                process.wait()
            return process.returncode, self.read_all(said), private * 1024

    @staticmethod
    def read_all(file):
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode(errors="replace")


class Programs(WithNode):
    def judge(self, argv, script=None, result=None, env=None, far=FAR):
        """Runs it natively and far; `result` is a file that it writes."""
        options = {"env": {**os.environ, "LC_ALL": "C", **(env or {})}}

        def run(runner):
            with contextlib.ExitStack() as stack:
                if script is not None:
                    path = self.folder / "script"
                    path.write_text(script, encoding="ascii")
                    options["stdin"] = stack.enter_context(open(path, "rb"))
                return runner()

        native = run(lambda: Native(argv, **options))
        self.assertEqual(native.status, 0, native.output)
        written = result.read_bytes() if result else None
        for share, faults in RUNS:
            local = max(native.peak * share // 100, LEAST_LOCAL)
            with self.subTest(share=share, faults=faults):
                if result:
                    result.unlink()
                status, output = run(lambda: self.far(local, argv, far, faults, **options))
                self.assertEqual(status, 0, output[-2000:])
                self.assertEqual(output, native.output)
                if result:
                    self.assertEqual(result.read_bytes(), written)

    def test_sort(self):
        result = self.folder / "sorted"
        self.judge(["sort", "--parallel=2", "-S", "200M", sort_input(self.folder), "-o", result],
                   result=result)

    def test_python_dictionary(self):
        self.judge(["/usr/bin/python3", "-"], script=PYTHON_DICTIONARY)

    def test_python_dictionary_from_malloc(self):
        self.judge(["/usr/bin/python3", "-"], script=PYTHON_DICTIONARY,
                   env={"PYTHONMALLOC": "malloc"})

    def test_sqlite(self):
        testing.need_programs("sqlite3")
        self.judge(["sqlite3", ":memory:"], script=SQLITE_SCRIPT)

    def test_gcc(self):
        testing.need_programs("gcc")
        result = self.folder / "large.s"
        self.judge(["gcc", "-O2", "-S", source_input(self.folder), "-o", result], result=result)

    def test_shell_with_children(self):
        # Each of them has far memory of its own.
        self.judge(["bash", "-c", "for i in 1 2 3; do (echo sub $i); x=$(echo in); echo $x | cat; "
                                  "done; ls / | sort -r"], far="64M")

    def test_shell_that_replaces_all_descriptors(self):
        # Each of them could be one of far memory's own.
        script = ("for n in 3 4 5 6 7 8 9 20 40 80 160; do eval \"exec $n>/dev/null\"; done; "
                  "text=$(printf '%100000s' x); for n in {3..1000}; do eval \"exec $n>&-\"; done; "
                  "more=$text$text$text; echo ${#more}; (echo ${#more}); ls / | wc -l")
        self.judge(["bash", "-c", script], far="64M")

    def test_python_that_closes_all_descriptors(self):
        self.judge(["/usr/bin/python3", "-c",
                    "import os; table = {i: str(i) for i in range(200000)}; "
                    "os.closerange(3, 4096); more = [text * 3 for text in table.values()]; "
                    "print(hash(tuple(table)), sum(map(len, more)))"],
                   env={"PYTHONHASHSEED": "0"})

    def test_stress(self):
        testing.need_programs("gcc")
        program = self.folder / "stress"
        subprocess.run(["gcc", "-O2", "-pthread", HERE / "far_memory_stress.c", "-o", program],
                       check=True)
        self.judge([program, "48", "4"])

    def test_corners(self):
        testing.need_programs("gcc")
        program = self.folder / "corners"
        subprocess.run(["gcc", "-O1", "-pthread", HERE / "far_memory_corners.c", "-o", program],
                       check=True)
        self.judge([program, self.folder / "corners.data"])


FAMILY = """
import hashlib, os, signal, sys
COUNT = 60000
table = {i: ('value %d ' % (i * 7919)) * 8 for i in range(COUNT)}

def digest():
    found = hashlib.sha256()
    for key in sorted(table):
        found.update(table[key].encode())
    return found.hexdigest()

def child_of(work):
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return pid

def rewrite(first, step, word):
    for key in range(first, COUNT, step):
        table[key] = '%s %d ' % (word, key) * 7
    found = digest()
    assert found == digest()
    return found

def end(pids):
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0, 'a child is wrong'
"""

TREE = FAMILY + """
base = digest()
def grandchild(inherited, number):
    assert digest() == inherited
    rewrite(0, 2, 'grandchild %d' % number)
def child(number):
    assert digest() == base
    mine = rewrite(number, 3, 'child %d' % number)
    end([child_of(lambda n=n: grandchild(mine, n)) for n in range(2)])
    assert digest() == mine
    os.write(1, b'child %d %s\\n' % (number, mine.encode()))
for round in range(2):
    pids = [child_of(lambda n=n: child(n)) for n in range(3)]
    mine = rewrite(1, 5, 'parent')
    end(pids)
    assert digest() == mine
    base = mine
print('right', mine)
"""

# Fewer at a time: all of them poll.
LINE = TREE.replace("range(2)", "range(1)").replace("range(3)", "range(1)")

# One after another takes as many pages as are free and is killed while it takes more.
KILLED = FAMILY + """
base = digest()
for turn in range(12):
    ready, tell = os.pipe()
    def work():
        rewrite(0, 1, 'child %d' % turn)
        os.write(tell, b'x')
        while True:
            rewrite(0, 1, 'again')
    pid = child_of(work)
    os.close(tell)
    assert os.read(ready, 1) == b'x', 'the child has ended'
    os.close(ready)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert digest() == base, 'the parent'
    base = rewrite(turn % 3, 3, 'parent')
print('right', base)
"""

# The parent and its child end at once; what is left is idle for longer than a node's lease.
DAEMON = FAMILY + """
import time
base = digest()
result, idle = sys.argv[1], float(sys.argv[2])
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
time.sleep(idle)
inherited = digest() == base
rewrite(0, 2, 'daemon')
with open(result + '.new', 'w') as file:
    file.write('right' if inherited else 'wrong')
os.rename(result + '.new', result)
os._exit(0)
"""

POOL = """
import multiprocessing, random
table = ['value %d ' % i * 9 for i in range(80000)]
def work(part):
    mine = [text.upper() for text in table[part::16]]
    table[part::16] = mine
    return sum(map(hash, mine)) + sum(map(len, table))
if __name__ == '__main__':
    with multiprocessing.get_context('fork').Pool(4) as pool:
        print(sum(pool.map(work, range(16))))
    print(sum(map(len, table)), table[5][:7])
"""

SHELL = """
declare -a words; for i in {1..60000}; do words[i]="word $i of many"; done
total() { local sum=0 w; for w in "${words[@]}"; do sum=$((sum + ${#w})); done; echo $sum; }
total; (total; words[7]=changed; total; (words[8]=deeper; total))
x=$(total); echo "sub $x"
for i in 1 2 3 4; do (words[i]=$(printf '%1000s' $i); total | cat); done
{ total; } & wait; total; echo ${words[7]}
"""


class Forks(WithNode):
    """Children of fork() have all that their parents had, and neither sees the other's changes."""

    LOCALS = (16 * MIB, 8 * MIB)

    def both(self, argv, far="192M", **options):
        native = subprocess.run(argv, check=True, stdout=subprocess.PIPE, timeout=LIMIT,
                                **options).stdout
        for local in self.LOCALS:
            with self.subTest(local=local):
                status, output = self.far(local, argv, far, **options)
                self.assertEqual(status, 0, output[-2000:])
                self.assertEqual(sorted(output.splitlines()), sorted(native.splitlines()))

    def python(self, program, *arguments, **options):
        self.both(["/usr/bin/python3", "-c", program, *arguments],
                  env={**os.environ, "PYTHONHASHSEED": "0"}, **options)

    def test_a_tree_of_children(self):
        self.python(TREE)

    def test_slots_of_killed_children_are_used_again(self):
        # Each child writes some 40 MiB of its own.
        self.python(KILLED, far="128M")

    def test_multiprocessing(self):
        self.python(POOL)

    def test_shell_with_large_subshells(self):
        self.both(["bash", "-c", SHELL])

    def test_a_program_that_asks_for_it_itself(self):
        testing.need_programs("gcc")
        program = self.folder / "library"
        subprocess.run(["gcc", "-O1", f"-I{testing.SOURCE / 'include'}",
                        HERE / "far_memory_library.c", f"-L{testing.BUILD / 'lib'}",
                        "-listhmus_far", "-o", program], check=True)
        for delivery in ("signal", "messages"):
            with self.subTest(delivery=delivery):
                done = subprocess.run([testing.ISTHMUS, "--socket", self.host.socket, "run", "--",
                                       program, self.address, "128", "8", delivery],
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                                      timeout=LIMIT, check=False)
                self.assertEqual((done.returncode, done.stdout), (0, b"right\n"))

    def daemon(self, idle, *options):
        result = self.folder / "result"
        with contextlib.suppress(FileNotFoundError):
            result.unlink()
        argv = self.far_argv(16 * MIB, ["/usr/bin/python3", "-c", DAEMON, result, str(idle)],
                             "192M")
        argv[argv.index("--"):0] = options
        subprocess.run(argv, check=True, timeout=LIMIT)
        give_up = time.monotonic() + LIMIT
        while not result.exists():
            self.assertLess(time.monotonic(), give_up)
            time.sleep(0.05)
        self.assertEqual(result.read_text(), "right")

    def test_parents_may_end_at_once(self):
        self.daemon(0)
        port = testing.fresh_port()
        node = self.host.spawn([NODE, "--size", "512M", "--bind", "127.0.0.1", "--port", port,
                                "--directory", "none", "--lease", "1000"])
        self.addCleanup(node.stop)
        self.assertTrue(node.wait_for("serving", PATIENCE), node.output())
        with self.subTest("idle for longer than a lease"):
            address, WithNode.address = WithNode.address, f"127.0.0.1:{port}"
            self.addCleanup(setattr, WithNode, "address", address)
            self.daemon(3)


class OtherHosts(WithNode):
    """Nodes in another network namespace, reached by RoCEv2."""

    WORK = ("import random\nrandom.seed(3)\n"
            "data = [random.getrandbits(64) for _ in range(300000)]\n"
            "print('begun', flush=True)\n"
            "for _ in range(ROUNDS):\n"
            "  data.sort(key=lambda number: number * 2654435761 % 1000003)\n"
            "print(sum(index * number for index, number in enumerate(data)) % (1 << 61))\n")
    LOCAL = 16 * MIB
    PORTS = (7471, 7472)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        near, far = (testing.at_end.enter_context(contextlib.closing(testing.Namespace()))
                     for _ in range(2))
        testing.connect_namespaces(near, far, "10.98.0.1", "10.98.0.2", mtu=9000)
        cls.near, cls.far_host = (
            testing.at_end.enter_context(contextlib.closing(testing.Host(address, namespace)))
            for address, namespace in (("10.98.0.1", near), ("10.98.0.2", far)))

    def nodes(self):
        started = []
        for port in self.PORTS:
            node = self.far_host.spawn([NODE, "--size", "512M", "--bind", self.far_host.address,
                                        "--port", port, "--directory", "none"])
            self.addCleanup(node.stop)
            self.assertTrue(node.wait_for("serving", PATIENCE), node.output())
            started.append(node)
        return started

    def start(self, rounds, *options):
        return self.start_program(self.WORK.replace("ROUNDS", str(rounds)), *options)

    def start_program(self, work, *options):
        words = ["run", "--local-memory", str(self.LOCAL), "--far-memory", "256M", *options]
        for port in self.PORTS:
            words += ["--memory-node", f"{self.far_host.address}:{port}"]
        return testing.Process([*self.near.namespace.prefix, testing.ISTHMUS, "--socket",
                                self.near.socket, *words, "--", "/usr/bin/python3", "-c", work])

    def result(self, process):
        status, text = process.wait(LIMIT), process.output()
        process.stop()
        return status, text

    def right(self, rounds):
        work = self.WORK.replace("ROUNDS", str(rounds))
        return subprocess.run(["/usr/bin/python3", "-c", work], check=True, capture_output=True,
                              text=True).stdout

    def test_over_the_network(self):
        self.nodes()
        for options in ([], ["--replicas", "2"], ["--encrypt", "--prefetch", "next"]):
            with self.subTest(options=options):
                self.assertEqual(self.result(self.start(1, *options)), (0, self.right(1)))

    def test_a_killed_node_costs_nothing_with_two(self):
        nodes = self.nodes()
        process = self.start(4, "--replicas", "2")
        self.assertTrue(process.wait_for("begun", LIMIT), process.output())
        nodes[0].signal(signal.SIGKILL)
        status, text = self.result(process)
        self.assertEqual(status, 0, text)
        self.assertEqual([line for line in text.splitlines() if line[0] in "b0123456789"],
                         self.right(4).splitlines(), text)

    def test_children_over_the_network(self):
        self.nodes()
        for options in ([], ["--encrypt"], ["--replicas", "2", "--encrypt"]):
            with self.subTest(options=options):
                status, text = self.result(self.start_program(LINE, *options))
                self.assertEqual(status, 0, text)
                self.assertIn("right", text)

    def test_a_killed_node_costs_children_nothing_with_two(self):
        nodes = self.nodes()
        work = FAMILY + (
            "base = digest()\n"
            "def work():\n"
            "  for turn in range(6):\n"
            "    mine = rewrite(turn % 3, 3, 'child %d' % turn)\n"
            "    assert digest() == mine\n"
            "pid = child_of(work)\n"
            "print('begun', flush=True)\n"
            "for turn in range(6):\n"
            "  mine = rewrite(turn % 3, 3, 'parent %d' % turn)\n"
            "  late = child_of(lambda: exec('assert digest() == mine'))\n"
            "  end([late])\n"
            "end([pid])\n"
            "print('right')\n")
        process = self.start_program(work, "--replicas", "2")
        self.assertTrue(process.wait_for("begun", LIMIT), process.output())
        nodes[0].signal(signal.SIGKILL)
        status, text = self.result(process)
        self.assertEqual(status, 0, text)
        self.assertIn("is gone", text)
        self.assertIn("right", text)

    def test_a_killed_node_ends_the_program_without(self):
        nodes = self.nodes()
        process = self.start(40)
        self.assertTrue(process.wait_for("begun", LIMIT), process.output())
        for node in nodes:
            node.signal(signal.SIGKILL)
        status, text = self.result(process)
        self.assertEqual(status, NO_FAR, text)
        self.assertIn("far memory is lost", text)


class AnyUser(WithNode):
    """A user whom the kernel lets serve the faults of programs only, not those of system calls."""

    ADDRESS = testing.loopback_address(9)

    def as_nobody(self, *words, **options):
        home = self.folder / "nobody"
        if not home.exists():
            home.mkdir()
            shutil.chown(home, "nobody")
            self.folder.chmod(0o755)
        argv = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups", "env",
                f"HOME={home}", f"ISTHMUS_SOCKET={home}/d.sock", *words]
        return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              timeout=LIMIT, check=False, **options)

    def setUp(self):
        testing.need_programs("setpriv")
        if self.as_nobody(testing.ISTHMUS, "--help").returncode != 0:
            self.skipTest(f"user nobody may not run {testing.ISTHMUS}")

    def run_far(self, *words, options=(), **others):
        return self.as_nobody(testing.ISTHMUS, "run", "--address", self.ADDRESS, "--local-memory",
                              "16M", "--far-memory", "128M", "--memory-node", self.address,
                              *options, "--", *words, **others)

    def test_programs(self):
        work = OtherHosts.WORK.replace("ROUNDS", "1").replace("300000", "100000")
        lines = "".join(f"{number * 7919 % 100003} {number}\n" for number in range(60000))
        for words, text in ((["/usr/bin/python3", "-c", work], None),
                            (["env", "LC_ALL=C", "sort", "-S", "24M"], lines)):
            with self.subTest(program=words[0]):
                text = text.encode() if text else None
                right = subprocess.run(words, input=text, stdout=subprocess.PIPE, check=True)
                done = self.run_far(*words, input=text)
                self.assertEqual(done.returncode, 0, done.stdout[-2000:])
                self.assertEqual(done.stdout, right.stdout)

    def test_messages_are_refused(self):
        done = self.run_far("true", options=["--faults", "message"])
        self.assertEqual(done.returncode, NO_FAR, done.stdout)
        self.assertIn(b"--faults message", done.stdout)


class Redis(WithNode):
    """A server of the same allocator, under its own benchmark; DEBUG DIGEST is its own judge."""

    def start(self, port, wrap, *options):
        # The server is the same program as a tool, which can be installed without starting it.
        server = self.folder / "redis-server"
        if not server.exists():
            server.symlink_to(shutil.which("redis-check-rdb"))
        argv = [str(server), "--port", str(port), "--bind", "127.0.0.1", "--save", "",
                "--enable-debug-command", "local", "--daemonize", "no", *options]
        process = testing.Process(wrap(argv))
        self.addCleanup(process.stop)
        self.assertTrue(process.wait_for("Ready to accept connections", PATIENCE),
                        process.output())
        return process

    def command(self, port, *words):
        return subprocess.run(["redis-cli", "-p", str(port), *words], check=True, text=True,
                              stdout=subprocess.PIPE, timeout=LIMIT).stdout

    def digest_after_load(self, wrap):
        port = testing.fresh_port()
        process = self.start(port, wrap)
        script = "for i=1,40000 do redis.call('SET','k'..i,string.rep('v'..i,40)) end"
        self.command(port, "EVAL", script, "0")
        subprocess.run(["redis-benchmark", "-p", str(port), "-n", "20000", "-q", "-t", "get"],
                       check=True, stdout=subprocess.PIPE, timeout=LIMIT)
        digest = self.command(port, "DEBUG", "DIGEST")
        memory = int(re.search(r"used_memory:(\d+)", self.command(port, "INFO", "memory"))[1])
        process.stop()
        return digest, memory

    def test_redis(self):
        testing.need_programs("redis-check-rdb", "redis-cli", "redis-benchmark")
        native, memory = self.digest_after_load(lambda argv: argv)
        for share, faults in RUNS:
            with self.subTest(share=share, faults=faults):
                local = max(memory * share // 100, LEAST_LOCAL)
                far, _ = self.digest_after_load(
                    lambda argv: self.far_argv(local, argv, faults=faults))
                self.assertEqual(far, native)

    KEYS = 60_000
    SET_ALL = (f"for i=1,{KEYS} do redis.call('SET','k'..i,string.rep(ARGV[1]..i,40)) "
               "if i % 1000 == 0 then redis.call('DEL','k'..(i-7)) end end")

    def digest(self, port):
        return self.command(port, "DEBUG", "DIGEST")

    def saved_under_writes(self, local_bytes):
        """Digests: when the save began, and at the end."""
        port = testing.fresh_port()
        # Slowly, so that the server overwrites everything meanwhile.
        process = self.start(port, lambda argv: self.far_argv(local_bytes, argv), "--dir",
                             self.folder, "--dbfilename", "saved", "--rdb-key-save-delay", "20")
        self.command(port, "EVAL", self.SET_ALL, "0", "first")
        began = self.digest(port)
        self.command(port, "BGSAVE")
        writes = 0
        while "rdb_bgsave_in_progress:1" in self.command(port, "INFO", "persistence"):
            writes += 1
            self.command(port, "EVAL", self.SET_ALL, "0", f"later{writes}")
        self.assertIn("rdb_last_bgsave_status:ok", self.command(port, "INFO", "persistence"),
                      process.output())
        self.assertGreater(writes, 0)
        ended = self.digest(port)
        process.stop()
        return began, ended, writes

    def test_redis_saves_while_it_is_written_to(self):
        testing.need_programs("redis-check-rdb", "redis-cli")
        for local in (16 * MIB, 8 * MIB):
            with self.subTest(local=local):
                began, ended, writes = self.saved_under_writes(local)
                port = testing.fresh_port()
                process = self.start(port, lambda argv: argv, "--dir", self.folder,
                                     "--dbfilename", "saved")
                self.assertEqual(self.digest(port), began)
                self.command(port, "FLUSHALL")
                self.command(port, "EVAL", self.SET_ALL, "0", f"later{writes}")
                self.assertEqual(self.digest(port), ended)
                process.stop()


class Memcached(WithNode):
    """Threads and slabs of its own: what was stored is read back, in another order."""

    COUNT = 20_000

    def value(self, number):
        return (f"{number * 7919:x}." * 1000)[:1000]

    def load_and_read(self, wrap):
        port = testing.fresh_port()
        process = testing.Process(wrap(["memcached", "-u", "root", "-l", "127.0.0.1", "-p",
                                        str(port), "-m", "64", "-v"]))
        self.addCleanup(process.stop)
        give_up = time.monotonic() + PATIENCE
        with socket.socket() as connection:
            while connection.connect_ex(("127.0.0.1", port)) != 0:
                if process.wait(0.02) is not None or time.monotonic() > give_up:
                    self.fail(process.output())
            connection.settimeout(LIMIT)
            stream = connection.makefile("rwb")
            for number in range(self.COUNT):
                stream.write(f"set k{number} 0 0 1000\r\n{self.value(number)}\r\n".encode())
                if number % 100 == 99:
                    stream.flush()
                    self.assertEqual({stream.readline() for _ in range(100)}, {b"STORED\r\n"})
            for step in range(self.COUNT):
                number = step * 7919 % self.COUNT
                stream.write(f"get k{number}\r\n".encode())
                stream.flush()
                header = stream.readline()
                self.assertTrue(header.startswith(b"VALUE"), header)
                self.assertEqual(stream.readline().decode().strip(), self.value(number))
                self.assertEqual(stream.readline(), b"END\r\n")
        process.stop()

    def test_memcached(self):
        testing.need_programs("memcached")
        stored = self.COUNT * 1000
        for share, faults in RUNS:
            with self.subTest(share=share, faults=faults):
                local = max(stored * share // 100, LEAST_LOCAL)
                self.load_and_read(lambda argv: self.far_argv(local, argv, faults=faults))


class Refusals(WithNode):
    """What cannot work is said, with an exit status that says so too."""

    def expect(self, status, words, got):
        self.assertEqual(got[0], status, got[1])
        self.assertIn(words, got[1].decode())

    def run_isthmus(self, *words):
        done = subprocess.run([testing.ISTHMUS, "--socket", self.host.socket, "run", *words],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60,
                              check=False)
        return done.returncode, done.stdout

    def test_sizes(self):
        for options, words in ((["--local-memory", "0"], "too little"),
                               (["--local-memory", "900T"], "more than this machine has"),
                               (["--local-memory", "much"], "'much' is no size")):
            got = self.run_isthmus(*options, "--far-memory", "64M", "--memory-node", self.address,
                                   "--", "true")
            self.expect(2, words, got)
        self.expect(2, "go together", self.run_isthmus("--far-memory", "64M", "--", "true"))

    def test_more_than_the_nodes_have(self):
        got = self.run_isthmus("--local-memory", "16M", "--far-memory", "64G", "--memory-node",
                               self.address, "--", "true")
        self.expect(NO_FAR, "far memory cannot be used", got)

    def test_no_node(self):
        got = self.run_isthmus("--local-memory", "16M", "--far-memory", "64M", "--memory-node",
                               f"127.0.0.1:{testing.fresh_port()}", "--", "true")
        self.expect(NO_FAR, "far memory cannot be used", got)

    def test_more_than_far_memory_is_a_failed_malloc(self):
        program = ("import sys\ntry:\n  bytearray(900 << 20)\nexcept MemoryError:\n"
                   "  print('refused')")
        self.expect(0, "refused", self.far(16 * MIB, ["/usr/bin/python3", "-c", program]))

    def test_a_fault_in_the_fault_path_ends_the_program(self):
        testing.need_programs("gcc")
        program = self.folder / "self_fault"
        subprocess.run(["gcc", "-O1", "-rdynamic", HERE / "far_memory_self_fault.c", "-o", program],
                       check=True)
        self.expect(NO_FAR, "ends instead of hanging", self.far(16 * MIB, [program]))

    def test_static_program(self):
        testing.need_programs("gcc")
        source = self.folder / "static.c"
        source.write_text("int main(void) { return 0; }\n", encoding="ascii")
        program = self.folder / "static"
        made = subprocess.run(["gcc", "-static", source, "-o", program], check=False)
        if made.returncode != 0:
            self.skipTest("no static libc")
        self.expect(126, "statically linked", self.far(16 * MIB, [program]))


if __name__ == "__main__":
    testing.main()
