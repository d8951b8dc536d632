#!/usr/bin/python3
"""Ours against Linux soft-RoCE in a QEMU guest, each side serving and connecting in turn."""
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "e2e"), str(HERE)]
import isthmus_testing as testing  # noqa: E402
import perftest  # noqa: E402
import pingpongs  # noqa: E402
import placements  # noqa: E402
import rdmacm_programs  # noqa: E402
import rsockets  # noqa: E402

for base in (pingpongs.Pingpong, rdmacm_programs.ConnectionManager, rsockets.Rsockets,
             perftest.Perftest):
    placements.multiply(globals(), base, placements.WITH_RXE)

if __name__ == "__main__":
    testing.main()
