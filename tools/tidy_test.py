#!/usr/bin/env python3
"""Goal: every rule of tidy.py can fail, says where, and leaves good code alone.
Method: a small tree per case, once with one fault and once without it.
"""

import sys
import tempfile
import unittest
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent))
import tidy

LAYERS = """# Layers

| folder | holds |
|---|---|
| base | Result |
| os | system calls |
| rdma | the engine |
| apps | programs |

| word | another table |
|---|---|
| stray | not a folder |
"""

OPENING = "// An idea.\n#pragma once\n"
LONG_BODY = "  int x = 0;\n" * 69
HOME = "/ho" + "me/somebody/file"  # In two parts: this file obeys the rules it tests.


def findings(files):
    """What tidy says of a tree that holds `files` (path: text) and the list of layers."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in {"src/README.md": LAYERS, **files}.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tidy.Tidy(root).run()


class Rules(unittest.TestCase):
    def expect(self, rule, line, name, text, **others):
        found = findings({name: text, **others})
        self.assertEqual(len(found), 1, found)
        self.assertTrue(found[0].startswith(f"{name}:{line}: {rule}: "), found)

    def expect_clean(self, name, text, **others):
        self.assertEqual(findings({name: text, **others}), [])

    def test_layer(self):
        self.expect("layer", 1, "src/os/a.cc", '#include "rdma/qp.h"\n')
        self.expect("layer", 1, "src/os/a.cc", '#include "a.h"\n')
        self.expect("layer", 1, "src/os/a.cc", '#include "gtest/gtest.h"\n')
        self.expect("layer", 1, "src/stray/a.cc", "int x;\n")
        self.expect_clean("src/rdma/a.cc",
                          '#include "rdma/a.h"\n#include "os/b.h"\n#include "apps.pb.h"\n'
                          "#include <apps/a.h>\n")
        self.expect_clean("tests/a.cc", '#include "apps/a.h"\n')

    def test_upper_half_reaches_rdma_only_through_verbs(self):
        layers = LAYERS.replace("| apps |", "| farmem | paging |\n| apps |")
        found = findings({"src/README.md": layers, "src/farmem/a.cc": '#include "rdma/a.h"\n'})
        self.assertEqual(len(found), 1)
        self.assertIn("src/farmem/a.cc:1: layer: ", found[0])

    def test_folder_name(self):
        for bad in ("utils", "common", "misc", "helpers", "Utils"):
            found = findings({f"tests/{bad}/a.py": "x = 1\n"})
            self.assertEqual([f.split(": ")[1] for f in found], ["folder-name"])
        self.expect_clean("tests/commonplace/a.py", "x = 1\n")

    def test_file_size(self):
        self.expect("file-size", 801, "src/os/a.cc", "int x;\n" * 801)
        self.expect_clean("src/os/a.cc", "int x;\n" * 800)
        self.expect_clean("docs/a.md", "text\n" * 801)

    def test_soft_file_size_is_a_note(self):
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "src/os").mkdir(parents=True)
            (root / "src/README.md").write_text(LAYERS)
            (root / "src/os/a.cc").write_text("int x;\n" * 401)
            checked = tidy.Tidy(root)
            self.assertEqual(checked.run(), [])
            self.assertEqual(len(checked.noted), 1)

    def test_function_size(self):
        for signature in ("int f(int a) {", "Foo::Foo(int a)\n    : a_{a}, b_(a) {",
                          "TEST(Group, Case) {", "struct ibv_mr* reg(struct ibv_pd* pd) {",
                          'extern "C" int f(void (*g)(int)) {', "auto f(int a) -> Foo {",
                          "namespace a {\nclass B : public C {\n public:\n  void g() const {",
                          "template <class T>\nvoid f(T a = {}) {"):
            with self.subTest(signature):
                tail = "}\n" * signature.count("namespace") + "};\n" * signature.count("class B")
                text = signature + "\n" + LONG_BODY + "}\n" + tail
                found = findings({"src/os/a.cc": text})
                self.assertEqual([f.split(": ")[1] for f in found], ["function-size"], found)
                shorter = text.replace("  int x = 0;\n", "", signature.count("\n") + 1)
                self.expect_clean("src/os/a.cc", shorter)

    def test_function_size_leaves_tables_and_types_alone(self):
        rows = "    {1, f(2)},\n" * 80
        self.expect_clean("src/os/a.cc", "constexpr Row kRows[] = {\n" + rows + "};\n")
        self.expect_clean("src/os/a.cc", "class A final : public B<int (C)> {\n"
                          + "  int f() { return 1; }\n" * 80 + "};\n")
        self.expect_clean("src/os/a.cc", "namespace a {\n" + "int f() { return 1; }\n" * 80 + "}\n")
        self.expect_clean("src/os/a.cc", "// {\nconst char* a = \"{\";\nchar b = '{';\n"
                          "int n = 1'000;\n" + "int f() { return 1; }\n" * 80)

    def test_columns(self):
        self.expect("columns", 1, "src/os/a.cc", "// " + "x" * 98 + "\n")
        self.expect("columns", 2, "tools/run", "#!/bin/sh\n# " + "x" * 99 + "\n")
        self.expect_clean("src/os/a.cc", "// " + "ü" * 97 + "\n")

    def test_opening(self):
        self.expect("opening", 1, "src/os/a.h", "#pragma once\n")
        self.expect("opening", 1, "src/os/a_test.cc", "// What it does.\n")
        self.expect_clean("src/os/a_test.cc", "// Goal: x.\n// Method: y.\n")

    def test_pragma_once(self):
        self.expect("pragma-once", 1, "src/os/a.h", "// An idea; not #pragma once.\n")
        self.expect_clean("src/os/a.h", OPENING)

    def test_threading(self):
        for holds in ("std::mutex m;", "std::atomic<int> a;", "std::condition_variable c;"):
            self.expect("threading", 3, "src/os/a.h", OPENING + holds + "\n")
        self.expect_clean("src/os/a.h", OPENING + "// Threading: any thread.\nstd::mutex m;\n")
        self.expect_clean("src/os/a.h", OPENING + "// Not a std::mutex.\n")
        self.expect_clean("src/os/a.cc", "std::mutex m;\n")

    def test_using_namespace(self):
        self.expect("using-namespace", 3, "src/os/a.h", OPENING + "using namespace std;\n")
        self.expect_clean("src/os/a.cc", "using namespace std;\n")

    def test_system_calls_belong_to_os(self):
        for call in ("int f = socket(a, b, c);", "return bind(f, a, n);", "if (::read(f, b, n)) {}",
                     "(void)munmap(p, n);", "ok && openat(f, a, n);", "auto t = Foo_clock::now();",
                     "::connect(f, a, n);", "epoll_wait(e, v, n, t);", "x = timerfd_create(c, f);",
                     "auto t = std::chrono::steady_clock::now();", "std::random_device seed;",
                     "std::this_thread::sleep_for(t);", "process_vm_readv(p, a, b, c, d, e);"):
            with self.subTest(call):
                self.expect("os-only", 2, "src/rdma/a.cc", "void f() {\n" + call + "\n}\n")
                self.expect_clean("src/os/a.cc", call + "\n")
                self.expect_clean("src/rdma/a_test.cc", "// Goal: x.\n" + call + "\n")

    def test_members_and_own_names_are_not_system_calls(self):
        for call in ("x.bind(a);", "y->connect(b);", "os::connect(a);", "std::bind(f, a);",
                     "Result<void> connect(Peer peer);", "Result<void> Link::connect(Peer p) {}",
                     "virtual Foo& open(Name name) = 0;", "read(a);", "// open(a) it\n",
                     'log("open(a)");', "ibv_open_device(d);", "my_socket(a);", "now.open;"):
            with self.subTest(call):
                self.expect_clean("src/rdma/a.cc", call + "\n")
        header = {"src/rdma/a.h": OPENING + "struct A { void open(int a); };\n"}
        own = '#include "rdma/a.h"\nvoid A::again() { open(1); }\n'
        self.expect_clean("src/rdma/a.cc", own, **header)
        self.expect_clean("src/rdma/a.cc", "const auto bind = [&](int a) {};\nint b = bind(1);\n")
        # With `::` it is the kernel's after all; and os lends its names to nobody.
        self.expect("os-only", 2, "src/rdma/a.cc", own.replace("open(1)", "::open(1)"), **header)
        self.expect("os-only", 2, "src/rdma/a.cc", own.replace("rdma", "os"),
                    **{"src/os/a.h": header["src/rdma/a.h"]})

    def test_allow_list(self):
        code = {"src/apps/a.cc": "void f() { execvp(a, b); }\n"}
        reason = "src/apps/* execv* becomes the program it was asked to run\n"
        self.assertEqual(findings({**code, tidy.ALLOW_FILE: reason}), [])
        # A line without a reason, a line for another call, a line that nothing needs.
        self.assertEqual(len(findings({**code, tidy.ALLOW_FILE: "src/apps/* execvp\n"})), 2)
        self.assertEqual(len(findings({**code, tidy.ALLOW_FILE: "src/apps/* mmap a b c\n"})), 2)
        self.assertEqual(len(findings({tidy.ALLOW_FILE: "# A comment.\n\n" + reason})), 1)

    def test_todo(self):
        to_do = "TO" + "DO"
        for text in (to_do, to_do + ": later", "FIX" + "ME: it breaks when the ring wraps"):
            self.expect("todo", 1, "src/os/a.cc", f"int x;  // {text}\n")
        self.expect_clean("src/os/a.cc", f"// {to_do}: XRC, when a program asks for it.\n")
        self.expect_clean("src/os/a.cc", f'const char* word = "{to_do}";\n')

    def test_place(self):
        self.expect("place", 1, "docs/a.md", f"See {HOME}.\n")
        self.expect("place", 2, "src/os/a.cc", f'int x;\nconst char* p = "{HOME}";\n')
        self.expect("place", 1, "docs/a.md", "Part of iss" + "ue 7.\n")
        self.expect_clean("tools/run", '#!/bin/sh\ncp a "$tree/root/x"; cat /proc/1/root\n')

    def test_commented_code(self):
        self.expect("commented-code", 1, "src/os/a.cc", "// a = 1;\n  // b = 2;\n// c();\nint x;\n")
        self.expect_clean("src/os/a.cc", "// a first;\n// then b;\n// then c.\nint x;\n")

    def test_cout(self):
        self.expect("cout", 1, "src/os/a.cc", "void f() { std::cout << 1; }\n")
        self.expect_clean("src/os/a.cc", "// Not std::cout.\n")


class Program(unittest.TestCase):
    def test_exit_status(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "src/os").mkdir(parents=True)
            (Path(folder) / "src/README.md").write_text(LAYERS)
            self.assertEqual(tidy.main(["--root", folder]), 0)
            (Path(folder) / "src/os/a.h").write_text("// An idea.\n")
            self.assertEqual(tidy.main(["--root", folder]), 1)


if __name__ == "__main__":
    unittest.main(buffer=True)
