#!/usr/bin/python3
"""What shows far memory, and the library that gives it to programs that ask for it.

isthmus run --report, isthmus memory stats, top and map of a running program; examples/far_sum.c
built by a C compiler. One memory node of the same host serves all of it.
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import unittest
import xml.etree.ElementTree

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402

NODE = testing.BUILD / "bin" / "isthmus-memory-node"
PATIENCE = 20
MIB = 1 << 20
LOCAL = 8 * MIB
DATA = 24 * MIB
PAGES = DATA // 4096

# Uses DATA bytes, twice, says so, and goes on when somebody writes to its standard input.
WORK = (f"import sys\ndata = bytearray({DATA})\n"
        f"for turn in (1, 2):\n  for at in range(0, {DATA}, 4096): data[at] += turn\n"
        "print('ready', flush=True)\n")
WAIT = "sys.stdin.readline()\n"


class WithNode(unittest.TestCase):
    host = None

    @classmethod
    def setUpClass(cls):
        testing.need_isthmus()
        testing.need_root("page faults of system calls")
        if cls.host:
            return
        host = testing.Host(testing.loopback_address(1))
        testing.at_end.callback(host.close)
        port = testing.fresh_port()
        node = host.spawn([NODE, "--size", "320M", "--bind", host.address, "--port", port,
                           "--directory", "none"])
        testing.at_end.callback(node.stop)
        if not node.wait_for("serving", PATIENCE):
            raise RuntimeError(node.output())
        folder = tempfile.TemporaryDirectory(prefix="isthmus-far-")
        testing.at_end.callback(folder.cleanup)
        WithNode.address = f"{host.address}:{port}"
        WithNode.folder = pathlib.Path(folder.name)
        WithNode.host = host

    def start(self, *argv, options=()):
        """A far program with pipes; the caller waits."""
        process = subprocess.Popen(
            [testing.ISTHMUS, "--socket", self.host.socket, "run", "--local-memory", str(LOCAL),
             "--far-memory", "64M", "--memory-node", self.address, *map(str, options), "--",
             *map(str, argv)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def start_python(self, code, **more):
        process = self.start("/usr/bin/python3", "-c", code, **more)
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process


class Watching(WithNode):
    def memory(self, *words):
        return subprocess.run([testing.ISTHMUS, "memory", *map(str, words)], capture_output=True,
                              text=True, timeout=PATIENCE, check=False)

    def shown(self, *words):
        done = self.memory(*words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def setUp(self):
        self.process = self.start_python(WORK + WAIT)
        self.pid = self.process.pid  # `isthmus run` has become the program.

    def test_stats_in_numbers(self):
        of_all = json.loads(self.shown("stats", "--json"))
        mine = next(row for row in of_all if row["process_id"] == self.pid)
        self.assertEqual([mine], json.loads(self.shown("stats", self.pid, "--json")))
        self.assertEqual(mine["program"], "python3")
        self.assertEqual(mine["local_limit_pages"], LOCAL // 4096)
        self.assertLessEqual(mine["pages_local"], LOCAL // 4096)
        # Expect: what does not fit is remote, and came back in the second turn.
        self.assertGreaterEqual(mine["pages_remote"] + mine["pages_staged"],
                                PAGES - LOCAL // 4096)
        self.assertGreaterEqual(mine["pages_read"], PAGES - LOCAL // 4096)
        self.assertGreater(mine["faults"], mine["faults_remote"])
        self.assertGreater(mine["faults_remote"], 0)

    def test_stats_and_top_for_people(self):
        row = next(line.split() for line in self.shown("stats").splitlines()
                   if line.split()[0] == str(self.pid))
        self.assertEqual(row[1], "python3")
        for words in (["stats", self.pid], ["top", "--once", self.pid]):
            text = self.shown(*words)
            self.assertRegex(text, r"(?m)^local memory allowed +8\.00 MiB$")
            self.assertRegex(text, r"(?m)^remote +\d\d\.\d+ MiB$")
            self.assertRegex(text, r"half of the faults took at most +[0-9.]+ us")
        self.assertIn(f"{self.pid} ", self.shown("top", "--once"))

    def test_map(self):
        text = self.shown("map", self.pid)
        legend, *rows = text.splitlines()
        group = re.match(r"each character is ([0-9.]+) (KiB|MiB)", legend)
        self.assertIsNotNone(group, legend)
        cell_kib = float(group[1]) * (1024 if group[2] == "MiB" else 1)
        cells = "".join(rows)
        self.assertAlmostEqual(len(cells) * cell_kib / 1024, 64, delta=cell_kib / 1024)
        self.assertGreater(cells.count("r") * cell_kib / 1024, (DATA - LOCAL) / MIB / 2)
        self.assertNotIn("!", cells)
        file = self.folder / "pages.svg"
        self.assertIn(str(file), self.shown("map", "--svg", file, self.pid))
        svg = xml.etree.ElementTree.parse(file).getroot()
        colours = {rectangle.get("fill") for rectangle in svg.iter() if "rect" in rectangle.tag}
        self.assertIn("#e9c46a", colours)  # Remote.

    def test_programs_that_are_not_there(self):
        for words, said in (([os.getpid()], "not far"), ([2 ** 22 + 1], "there is no process")):
            for verb in ("stats", "map"):
                done = self.memory(verb, *words)
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertIn(said, done.stderr)
        self.process.communicate("go on\n", timeout=PATIENCE)
        self.assertEqual(self.process.returncode, 0)
        self.assertNotIn(str(self.pid), self.shown("stats"))


class Report(WithNode):
    def setUp(self):
        self.file = self.folder / "report.html"

    def start_reported(self, code):
        return self.start_python(code, options=["--report", self.file])

    def check_report(self, status):
        text = self.file.read_text(encoding="utf-8")
        self.assertIn(f"<p>Exit status {status}.</p>", text)
        # Expect: the figures, the histogram with faults in it, curves over time, the map.
        read = re.search(r"read from memory nodes +([0-9.]+) MiB", text)
        self.assertIsNotNone(read, text[:3000])
        self.assertGreaterEqual(float(read[1]), (DATA - LOCAL) / MIB)
        histogram = text.split("How long faults took")[1].split("<h2>")[0]
        heights = [float(height) for height in
                   re.findall(r"height=\"([0-9.]+)\" fill=\"#1d70a2\"", histogram)]
        self.assertEqual(max(heights), 160)  # The tallest fills the picture.
        for title in ("Network, MB each second", "Faults each second", "Where the pages are",
                      "Prefetching, percent"):
            curves = text.split(title)[1].split("<h2>")[0]
            self.assertRegex(curves, r"points=\"\d+\.\d,\d+\.\d ")
        self.assertIn("Pages, as last seen", text)

    def test_a_program_that_ends(self):
        process = self.start_reported(WORK + WAIT + "sys.exit(7)")
        process.communicate("go on\n", timeout=PATIENCE)
        self.assertEqual(process.returncode, 7)
        self.check_report(7)

    def test_a_program_that_becomes_another(self):
        # The shell has far memory too, and is seen first.
        process = self.start("sh", "-c", "sleep 0.3; exec \"$@\"", "-", "/usr/bin/python3", "-c",
                             WORK + WAIT, options=["--report", self.file])
        self.assertEqual(process.stdout.readline(), "ready\n")
        process.communicate("go on\n", timeout=PATIENCE)
        self.assertEqual(process.returncode, 0)
        self.check_report(0)

    def test_signals_reach_the_program(self):
        asked = "signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))\n"
        for handler, status in ((asked, 9), ("", 128 + signal.SIGTERM)):
            process = self.start_reported("import sys, signal\n" + handler + WORK + WAIT)
            time.sleep(0.3)  # It is looked at ten times a second.
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=PATIENCE)
            self.assertEqual(process.returncode, status)
            self.check_report(status)


class CLibrary(WithNode):
    SOURCE = testing.SOURCE / "examples" / "far_sum.c"

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        testing.need_programs("cc")
        cls.program = cls.folder / "far_sum"
        library = testing.BUILD / "lib"
        subprocess.run(["cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1",
                        f"-I{testing.SOURCE / 'include'}", cls.SOURCE, f"-L{library}",
                        "-listhmus_far", f"-Wl,-rpath,{library}", "-o", cls.program], check=True)

    def test_an_array_that_does_not_fit(self):
        status, text = testing.run(self.host, [self.program, self.address], PATIENCE)
        self.assertEqual(status, 0, text)
        found = re.fullmatch(r"sum (\d+), (\d+) pages here, (\d+) read, (\d+) written\n", text)
        self.assertIsNotNone(found, text)
        total, here, read, written = map(int, found.groups())
        count, local_pages, all_pages = 32 << 20, 8192, 65536
        self.assertEqual(total, count * (count - 1) // 2)
        self.assertLessEqual(here, local_pages)
        self.assertGreaterEqual(read, all_pages - local_pages)
        self.assertGreaterEqual(written, all_pages - local_pages)

    def test_it_is_seen_by_stats(self):
        process = self.host.spawn([self.program, self.address])
        self.addCleanup(process.stop)
        seen = []
        while not seen and process.wait(0.02) is None:
            done = subprocess.run([testing.ISTHMUS, "memory", "stats", "--json"],
                                  capture_output=True, check=True, timeout=PATIENCE)
            seen = [row for row in json.loads(done.stdout) if row["program"] == "far_sum"]
        self.assertEqual([row["local_limit_pages"] for row in seen], [8192], process.output())

    def test_without_a_node(self):
        address = f"{self.host.address}:{testing.fresh_port()}"
        status, text = testing.run(self.host, [self.program, address], PATIENCE)
        self.assertEqual(status, 1, text)
        self.assertIn(f"far_sum: memory node {address}: nobody serves there", text)

    def test_without_a_daemon(self):
        done = subprocess.run([self.program, self.address], capture_output=True, text=True,
                              timeout=PATIENCE, check=False,
                              env={"ISTHMUS_SOCKET": str(self.folder / "nobody")})
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("far_sum: ", done.stderr)


if __name__ == "__main__":
    testing.main()
