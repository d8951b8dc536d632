#!/usr/bin/python3
"""What a program linked with the distribution's libraries finds in ours: every symbol at its
version, and no library behind them that the program does not bring along anyway."""
import pathlib
import re
import subprocess
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402

# libc in its parts, and the run-time of C++.
ALLOWED = re.compile(r"^(libc\.so\.6|libm\.so\.6|ld-linux-x86-64\.so\.2|libstdc\+\+\.so\.6|"
                     r"libgcc_s\.so\.1)$")


def real_library(name):
    for path in sorted(pathlib.Path("/usr/lib").glob(f"*/{name}")):
        return path
    raise unittest.SkipTest(f"the distribution's {name} is not installed")


def our_library(name):
    path = testing.BUILD / "lib" / name
    if not path.exists():
        raise RuntimeError(f"{path} is not built; run ./dev build release")
    return path


def exports(path):
    """{symbol@version} of what new programs bind to; versions kept for old ones stand in ()."""
    table = subprocess.run(["objdump", "-T", path], check=True, capture_output=True,
                           text=True).stdout
    found = re.findall(r"^[0-9a-f]+ [gw]\s+D\w?\s+\S+\s+[0-9a-f]+\s+(\S+)\s+(\S+)$", table,
                       re.MULTILINE)
    return {f"{symbol}@{version}" for version, symbol in found if not version.startswith("(")}


def needed(path):
    header = subprocess.run(["objdump", "-p", path], check=True, capture_output=True,
                            text=True).stdout
    return set(re.findall(r"NEEDED\s+(\S+)", header))


class Exports(unittest.TestCase):
    def setUp(self):
        testing.need_programs("objdump")

    def check_exports(self, name):
        real = exports(real_library(name))
        self.assertGreater(len(real), 60, f"{name} could not be read")
        self.assertEqual(sorted(real - exports(our_library(name))), [])

    def test_librdmacm_exports_what_the_real_one_does(self):
        self.check_exports("librdmacm.so.1")

    def test_libibverbs_exports_what_the_real_one_does(self):
        self.check_exports("libibverbs.so.1")

    def test_librdmacm_has_the_newest_functions_too(self):
        ours = exports(our_library("librdmacm.so.1"))
        for symbol in ("rdma_resolve_addrinfo@RDMACM_1.4", "rdma_write_cm_event@RDMACM_1.4",
                       "repoll_wait@RDMACM_1.5"):
            self.assertIn(symbol, ours)

    def test_nothing_else_is_visible(self):
        for symbol in exports(our_library("librdmacm.so.1")):
            self.assertRegex(symbol, r"^(rdma_|r[a-z]+@|repoll_|RDMACM_)")

    def test_the_libraries_need_nothing_unusual(self):
        behind = needed(our_library("librdmacm.so.1"))
        self.assertIn("libibverbs.so.1", behind)
        for library in (behind - {"libibverbs.so.1"}) | needed(our_library("libibverbs.so.1")):
            self.assertRegex(library, ALLOWED)


if __name__ == "__main__":
    testing.main()
