#!/usr/bin/python3
"""rdma-core's own test suite for verbs, with Debian's python3-pyverbs, on our device.

    pyverbs_suite.py [--update] [--table FILE] [--placement NAME] [PATTERN]

Runs the generic tests (not those of mlx5 and efa hardware) whose name contains PATTERN, prints
every one with its reason, and fails when one does worse than pyverbs_expected.txt says.
--update rewrites that file from this run. --table writes the summary into FILE, between the lines
`<!-- pyverbs begin -->` and `<!-- pyverbs end -->`. --placement: same_host (default; in a network
namespace of its own when root), same_host_roce, or rxe_both to judge Linux rxe instead.

The suite is the copy that Debian's python3-pyverbs ships as documentation; it is unpacked below
build/, never committed. ISTHMUS_RDMA_CORE_TESTS names another copy.
"""
import argparse
import collections
import contextlib
import gzip
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import placements  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
# What a device answers for what it does not offer; some tests do not turn it into a skip.
NOT_SUPPORTED = "Errno: 95, Operation not supported"
EXPECTED = HERE / "pyverbs_expected.txt"
SHIPPED = pathlib.Path("/usr/share/doc/rdma-core/tests")
UNPACKED = testing.SOURCE / "build" / "pyverbs_suite" / "tests"
NOT_GENERIC = re.compile(r"^tests\.test_(mlx5|efa)")
SILENCE_SECONDS = 60  # The longest one test may take.
HEADER = """\
# What each generic test of rdma-core 44's pyverbs suite does on isthmus0: NAME ok, or
# NAME skip REASON. Written by `pyverbs_suite.py --update`; a test that does worse is a failure.
"""


def find_suite():
    given = os.environ.get("ISTHMUS_RDMA_CORE_TESTS")
    if given:
        return pathlib.Path(given)
    if subprocess.run(["/usr/bin/python3", "-c", "import pyverbs"], capture_output=True).returncode:
        raise unittest.SkipTest("python3-pyverbs is not installed")
    shutil.rmtree(UNPACKED, ignore_errors=True)
    UNPACKED.mkdir(parents=True)
    if SHIPPED.exists():
        unpack(SHIPPED)
    else:  # Small images leave out the documentation of the packages they install.
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["apt-get", "download", "python3-pyverbs"], cwd=folder,
                           capture_output=True)
            for package in pathlib.Path(folder).glob("*.deb"):
                subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
                unpack(folder + str(SHIPPED))
    if not (UNPACKED / "run_tests.py").exists():
        raise unittest.SkipTest("rdma-core's tests are not on this machine; "
                                "set ISTHMUS_RDMA_CORE_TESTS to a copy")
    return UNPACKED


def unpack(folder):
    for path in pathlib.Path(folder).iterdir():
        if path.suffix == ".gz":
            (UNPACKED / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            shutil.copy(path, UNPACKED)


class Suite:
    """Runs the tests module by module; a module that crashes goes on behind the test it died in."""

    def __init__(self, host, folder):
        self._host = host
        self._command = ["/usr/bin/python3", "-B", HERE / "pyverbs_child.py", folder, host.device,
                         host.gid_index()]

    def list(self):
        _, text = testing.run(self._host, self._command, limit=120)
        names = [fields[1] for fields in records(text) if fields[0] == "list"]
        if not names:
            raise RuntimeError(f"the suite lists no tests:\n{text}")
        return [name for name in names if not NOT_GENERIC.match(name)]

    def run(self, names):
        modules = collections.defaultdict(list)
        for name in names:
            modules[name.rsplit(".", 2)[0]].append(name)
        for todo in modules.values():
            while todo:
                done = self._run_module(todo)
                yield from done
                todo = todo[len(done):]

    def _run_module(self, names):
        process = self._host.spawn([*self._command, *names])
        try:
            reported, status = -1, None
            while status is None and reported != len(records(process.output())):
                reported = len(records(process.output()))
                status = process.wait(SILENCE_SECONDS)
            text = process.output()
        finally:
            process.stop()
        done = [fields for fields in records(text) if fields[0] not in ("start", "list")]
        if len(done) < len(names):
            what = f"no end after {SILENCE_SECONDS} s" if status is None else f"crashed: {status}"
            done.append(["fail", names[len(done)], f"{what}\n{text[-2000:]}"])
        return done


def records(text):
    found = []
    for line in text.splitlines():
        if line.startswith("@@"):
            try:
                found.append(json.loads(line[2:]))
            except json.JSONDecodeError:
                pass  # The line is still being written.
    return found


def read_expected():
    expected = {}
    for line in EXPECTED.read_text().splitlines() if EXPECTED.exists() else ():
        if line and not line.startswith("#"):
            name, outcome, *reason = line.split(" ", 2)
            expected[name] = outcome, " ".join(reason)
    return expected


def write_expected(results, expected):
    """A failed test keeps its old line: --update does not make a failure the expectation."""
    lines = dict(expected)
    for outcome, name, detail in results:
        if outcome != "fail":
            lines[name] = outcome, detail
    EXPECTED.write_text(HEADER + "".join(
        " ".join(filter(None, (name, *lines[name]))) + "\n" for name in sorted(lines)))


def write_table(path, results):
    counts = collections.Counter(outcome for outcome, _, _ in results)
    by_module = collections.defaultdict(collections.Counter)
    for outcome, name, _ in results:
        by_module[name.split(".")[1]][outcome] += 1
    rows = [f"{len(results)} generic tests: {counts['ok']} ok, {counts['skip']} skipped, "
            f"{counts['fail']} failed.", "",
            "| module | ok | skipped | failed |", "|---|---|---|---|"]
    rows += [f"| {module} | {count['ok']} | {count['skip']} | {count['fail']} |"
             for module, count in sorted(by_module.items())]
    rows += ["", "| not passed | reason |", "|---|---|"]
    rows += [f"| {name.removeprefix('tests.')} | "
             f"{(detail.strip().splitlines() or ['?'])[-1].replace('|', '/')} |"
             for outcome, name, detail in results if outcome != "ok"]
    begin, end = "<!-- pyverbs begin -->", "<!-- pyverbs end -->"
    old = path.read_text() if path.exists() else f"# Conformance\n\n{begin}\n{end}\n"
    before, rest = old.split(begin)
    path.write_text(f"{before}{begin}\n" + "\n".join(rows) + f"\n{end}{rest.split(end)[1]}")


@contextlib.contextmanager
def huge_pages(count=8):
    """Three tests want huge pages of 2 MiB: root gets them some for as long as the suite runs."""
    path = pathlib.Path("/proc/sys/vm/nr_hugepages")
    before = path.read_text()
    wanted = os.geteuid() == 0 and int(before) < count
    with contextlib.suppress(OSError):
        if wanted:
            path.write_text(str(count))
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if wanted:
                path.write_text(before)


def open_host(placement):
    if placement == "same_host" and os.geteuid() == 0:
        # In a namespace, so that multicast and the device's network interface are like a NIC's.
        return placements.open_pair("two_namespaces")[0]
    return placements.open_pair(placement)[0]


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--update", action="store_true")
    arguments.add_argument("--table", type=pathlib.Path)
    arguments.add_argument("--placement", default="same_host")
    arguments.add_argument("pattern", nargs="?", default="")
    options = arguments.parse_args()
    with testing.at_end:
        try:
            suite = Suite(open_host(options.placement), find_suite())
        except unittest.SkipTest as reason:
            print(f"skip: pyverbs_suite: {reason}")
            return testing.NOTHING_RAN
        with huge_pages():
            return judge(suite, options)


def judge(suite, options):
    expected = read_expected()
    results, worse = [], []
    for outcome, name, detail in suite.run([n for n in suite.list() if options.pattern in n]):
        if outcome == "fail" and detail.rstrip().endswith(NOT_SUPPORTED):
            outcome, detail = "skip", f"does not skip by itself: {detail.rstrip().splitlines()[-1]}"
        results.append((outcome, name, detail))
        print(f"{outcome:5}{name}{': ' if detail else ''}{detail}", flush=True)
        wanted = expected.get(name, ("ok", ""))[0]
        if outcome == "fail" or (outcome == "skip" and wanted == "ok"):
            worse.append(f"{name}: {outcome}, expected {wanted}")
        elif outcome != wanted:
            print(f"     better than expected ({wanted}): run with --update")
    counts = collections.Counter(outcome for outcome, _, _ in results)
    print(f"\n{len(results)} tests: {counts['ok']} ok, {counts['skip']} skipped, "
          f"{counts['fail']} failed")
    if options.update:
        write_expected(results, expected)
    if options.table:
        write_table(options.table, results)
    for line in worse:
        print(f"worse than {EXPECTED.name}: {line}")
    return 1 if worse and not options.update else 0


if __name__ == "__main__":
    sys.exit(main())
