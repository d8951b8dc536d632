"""Runs tests of rdma-core's pyverbs suite and reports each on a line of its own.

Usage: pyverbs_child.py SUITE_FOLDER DEVICE GID_INDEX TEST...   (no TEST: lists all of them)

Lines are `@@` and a JSON array: ["list", id], ["start", id], ["ok"|"skip"|"fail", id, detail].
pyverbs_suite.py starts this under `isthmus run`, where a crash costs one test.
"""
import importlib.machinery
import json
import sys
import unittest


def report(*fields):
    print("@@" + json.dumps(fields), flush=True)


class Result(unittest.TestResult):
    def startTest(self, test):
        super().startTest(test)
        report("start", test.id())
        self.outcome = "ok", ""

    def stopTest(self, test):
        super().stopTest(test)
        report(self.outcome[0], test.id(), self.outcome[1])

    def addSkip(self, test, reason):
        self.outcome = "skip", " ".join(reason.split())

    def addError(self, test, error):
        self.outcome = "fail", self._exc_info_to_string(error, test)

    def addFailure(self, test, error):
        self.addError(test, error)

    def addSubTest(self, test, subtest, error):
        if error:
            self.addError(test, error)


def flatten(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flatten(test)
        else:
            yield test


def main():
    folder, device, gid_index, *wanted = sys.argv[1:]
    sys.path.insert(0, folder)
    sys.argv = ["run_tests.py", "--dev", device, "--gid", gid_index]
    from args_parser import parser
    loader = importlib.machinery.SourceFileLoader("tests", f"{folder}/__init__.py")
    suite = loader.load_module()
    parser.parse_args()
    tests = {test.id(): test for test in flatten(unittest.defaultTestLoader.loadTestsFromModule(
        suite))}
    if not wanted:
        for name in tests:
            report("list", name)
    for name in wanted:
        unittest.TestSuite([tests[name]]).run(Result())


main()
