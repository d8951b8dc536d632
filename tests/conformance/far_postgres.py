#!/usr/bin/python3
"""PostgreSQL whose private memory is far: what its queries answer and what its tables hold.

In single-user mode all is one process: sorts, hashes and joins with more memory than may stay here.
As a server, each connection is a child of fork(): pgbench and pg_dump judge those. Shared buffers
are shared memory, and always local.

The server refuses root, and far memory needs the right to serve the page faults of system calls:
an ordinary user gets that one capability.
"""
import hashlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import far_memory  # noqa: E402
import isthmus_testing as testing  # noqa: E402

FAR = "384M"
NOBODY = 65534
SHARES = [int(share) for share in os.environ.get("ISTHMUS_FAR_SHARES", "50").split(",")]
NEVER_FAR = 24 * far_memory.MIB  # What a server has that is never far: stacks, libc's own.
SETTINGS = ("-c", "fsync=off", "-c", "shared_buffers=8MB", "-c", "jit=off")
# Single-user mode ends a command at an empty line. The cursor keeps what it has sorted.
QUERIES = """set work_mem = '256MB';

set max_parallel_workers_per_gather = 0;

drop table if exists t;

create table t as select i, md5(i::text) as m, i * 31 % 1009 as g from generate_series(1, 400000) i;

select count(*), md5(string_agg(m, '' order by m)) from t;

select count(*), sum(n) from (select m, count(*) as n from t group by m) as groups;

select count(*), sum(a.i), max(b.m) from t a join t b on a.m = b.m where a.g < 500;

select md5(string_agg(g || ':' || x, ',')) from
  (select g, sum(i) over (partition by g order by m) as x from t order by g, m) as windows;

create index t_by_m on t(m);

select count(*) from t where m > 'f';

begin;

declare sorted cursor for select * from t order by md5(m);

fetch 1 from sorted;

select 'end' as last;

"""
LAST = 'last = "end"'


def find_program(name):
    """Of the newest server that is installed, or that `./dev test` has unpacked."""
    for root in (pathlib.Path("/"), *sorted((testing.SOURCE / "build/packages").glob("postgres*"))):
        found = sorted(root.glob(f"usr/lib/postgresql/*/bin/{name}"))
        if found:
            return found[-1]
    raise unittest.SkipTest(f"PostgreSQL's {name} is not installed")


class Postgres(far_memory.WithNode):
    @classmethod
    def setUpClass(cls):
        testing.need_root("page faults of system calls")
        testing.need_programs("setpriv")
        cls.programs = {name: find_program(name)
                        for name in ("initdb", "postgres", "pgbench", "pg_dump")}
        for program in cls.programs.values():
            if subprocess.run(cls.by_user([program, "--version"]), capture_output=True,
                              check=False).returncode != 0:
                raise unittest.SkipTest(f"an ordinary user cannot run {program}")
        super().setUpClass()
        for path in (pathlib.Path(cls.host.socket).parent, cls.folder):
            path.chmod(0o755)
        pathlib.Path(cls.host.socket).chmod(0o666)
        # Of the same user, so that the kernel lets programs reach its memory.
        port = testing.fresh_port()
        node = testing.Process(cls.by_user([
            str(word) for word in (testing.ISTHMUS, "--socket", cls.host.socket, "run", "--",
                                   far_memory.NODE, "--size", "2G", "--bind", "127.0.0.1",
                                   "--port", port, "--directory", "none")]))
        testing.at_end.callback(node.stop)
        if not node.wait_for("serving", far_memory.PATIENCE):
            raise RuntimeError(node.output())
        cls.address = f"127.0.0.1:{port}"

    def program(self, name, *words):
        return [str(word) for word in (self.programs[name], *words)]

    @staticmethod
    def by_user(argv):
        return ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups",
                "--inh-caps=+sys_ptrace", "--ambient-caps=+sys_ptrace", *argv]

    def run_user(self, argv):
        done = subprocess.run(self.by_user(argv), cwd=self.cluster, env=self.environment(),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False,
                              stderr=subprocess.STDOUT, timeout=far_memory.LIMIT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[-3000:])

    def environment(self):
        return {**os.environ, "LC_ALL": "C", "PGHOST": str(self.cluster), "PGUSER": "postgres",
                "PGDATABASE": "postgres"}

    def make_cluster(self, name, wrap):
        self.cluster = self.folder / name
        self.cluster.mkdir()
        os.chown(self.cluster, NOBODY, NOBODY)
        self.run_user(wrap(self.program("initdb", "-D", self.cluster / "data", "-A", "trust", "-U",
                                        "postgres", "--no-sync", "-E", "UTF8", "--locale=C")))

    def query(self, wrap):
        """What single-user mode answers, and the memory that it has at the end."""
        argv = wrap(self.program("postgres", "--single", "-j", *SETTINGS, "-D",
                                 self.cluster / "data", "postgres"))
        status, text, here = self.run_and_look(self.by_user(argv), QUERIES, LAST, cwd=self.cluster,
                                               env=self.environment())
        self.assertEqual(status, 0, text[-3000:])
        answers = [line for line in text.splitlines() if re.search(r"\d+: \w+ = \"", line)]
        self.assertEqual(len(answers), 13, text)
        return answers, here

    def bench(self, wrap):
        """A digest of the tables that pgbench fills and changes, as pg_dump has them."""
        server = testing.Process(self.by_user(wrap(self.program(
            "postgres", *SETTINGS, "-D", self.cluster / "data", "-k", self.cluster, "-c",
            "listen_addresses="))), {"LC_ALL": "C"})
        self.addCleanup(server.stop)
        self.assertTrue(server.wait_for("ready to accept connections", far_memory.PATIENCE),
                        server.output())
        self.run_user(self.program("pgbench", "-i", "-q", "-s", "2"))
        bench = self.program("pgbench", "-n", "--random-seed=7", "-t", "300")
        self.run_user(bench)
        self.run_user([*bench, "-S", "-c", "8"])
        dump = self.cluster / "dump"
        self.run_user(self.program("pg_dump", "--data-only", "-t", "pgbench_*", "-T",
                                   "pgbench_history", "-f", dump))
        server.signal(signal.SIGINT)
        self.assertEqual(server.wait(far_memory.PATIENCE), 0, server.output())
        # One client and one seed: all is the same each time, but for the times in the history and
        # the random keys of \restrict.
        digest = hashlib.sha256()
        rows = 0
        with open(dump, "rb") as lines:
            for line in lines:
                if b"restrict" not in line:
                    digest.update(line)
                    rows += line[:1].isdigit()
        self.assertEqual(rows, 200_000 + 20 + 2)
        return digest.hexdigest()

    def test_single_user(self):
        self.make_cluster("single", lambda argv: argv)
        native, peak = self.query(lambda argv: argv)
        for share in SHARES:
            with self.subTest(share=share):
                local = peak * share // 100
                far, here = self.query(lambda argv: self.far_argv(local, argv, FAR))
                self.assertEqual(far, native)
                self.assertLess(here, local + NEVER_FAR)

    def test_server(self):
        def far(argv):
            return self.far_argv(far_memory.LEAST_LOCAL, argv, FAR)
        self.make_cluster("native", lambda argv: argv)
        native = self.bench(lambda argv: argv)
        self.make_cluster("far", far)
        self.assertEqual(self.bench(far), native)


if __name__ == "__main__":
    testing.main()
