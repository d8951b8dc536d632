#!/usr/bin/python3
"""Our libibverbs.so.1 has every name and version of the distribution's, and needs little.

Usage: exports_test.py OUR_LIBRARY [ALLOWED_EXTRA_LIBRARY...]. Judged by binutils and by the
library that programs were linked with. Exit status 77: there is none here to compare with.
"""
import pathlib
import re
import subprocess
import sys

ALLOWED_NEEDS = ("libc.so", "libm.so", "libstdc++.so", "libgcc_s.so", "ld-linux")
# Of releases that the distribution does not have: one name in each says that the node is there.
NEWER = {"ibv_reg_mr_ex@IBVERBS_1.15", "ibv_query_port_speed@IBVERBS_1.16",
         "ibv_alloc_buf@IBVERBS_1.17", "ibv_create_comp_cntr@IBVERBS_1.18"}
PRIVATE_NODES = (25, 33, 34, 57, 59, 64, 65)


def exports(library):
    text = subprocess.run(["readelf", "--dyn-syms", "--wide", library], check=True,
                          capture_output=True, text=True).stdout
    found = {}
    for line in text.splitlines():
        fields = line.split()
        if len(fields) < 8 or fields[6] == "UND" or "@" not in fields[7]:
            continue
        name, kind = fields[7].replace("@@", "@"), fields[3]
        if not name.startswith("IBVERBS_"):  # A node's own symbol.
            found[name] = kind
    return found


def needs(library):
    text = subprocess.run(["readelf", "--dynamic", library], check=True, capture_output=True,
                          text=True).stdout
    soname = re.search(r"SONAME.*\[(.*)\]", text)
    return soname[1] if soname else None, re.findall(r"NEEDED.*\[(.*)\]", text)


def main(ours, *allowed_extra):
    candidates = sorted(pathlib.Path("/usr/lib").glob("*/libibverbs.so.1"))
    if not candidates:
        print("skip: the distribution's libibverbs.so.1 is not installed")
        return 77
    mine, theirs = exports(ours), exports(candidates[0])
    problems = [f"missing: {name}" for name in sorted(theirs.keys() - mine.keys())]
    problems += [f"{name} is {mine[name]}, not {kind}" for name, kind in theirs.items()
                 if name in mine and mine[name] != kind]
    problems += [f"missing: {name}" for name in sorted(NEWER - mine.keys())]
    for node in PRIVATE_NODES:
        name = f"verbs_register_driver_{node}@IBVERBS_PRIVATE_{node}"
        if name not in mine:
            problems.append(f"missing: {name}")
    problems += [f"not of the interface: {name}" for name in mine if "@IBVERBS_" not in name]
    soname, needed = needs(ours)
    if soname != "libibverbs.so.1":
        problems.append(f"its SONAME is {soname}")
    problems += [f"it needs {library}" for library in needed
                 if not library.startswith(ALLOWED_NEEDS + allowed_extra)]
    if len(theirs) < 150:
        problems.append(f"only {len(theirs)} names found in {candidates[0]}: not believable")
    print("\n".join(problems) or f"{len(theirs)} names of {candidates[0]}, {len(mine)} of ours")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
