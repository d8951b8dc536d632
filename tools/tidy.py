#!/usr/bin/env python3
"""House rules that a program can check, in under a second, over the whole tree.

Each finding is one line, `file:line: rule: what to do`; no finding, no output, exit status 0.
Usage: tidy.py [--notes] [--root FOLDER]. `--notes` also names the files past the soft size.

The checks read text, not C++: they know comments, strings and braces, and no more. That is enough
for this code base; what they get wrong about system calls goes into tidy_allow.txt with a reason.
"""

import argparse
import fnmatch
import os
import re
import sys
from pathlib import Path

FILE_LINES_SOFT = 400
FILE_LINES_HARD = 800
FUNCTION_LINES = 70
COLUMNS = 100

CPP = {".h", ".cc", ".c"}
CODE = CPP | {".py", ".cmake", ".sh", ".proto"}
NO_TEXT = {".pcap", ".pcapng", ".png", ".bin", ".gz", ".pyc"}
SKIPPED_FOLDERS = {".git", "build", "__pycache__", "corpus", ".cache"}
BAD_FOLDERS = {"utils", "util", "common", "misc", "helpers", "helper"}
ALLOW_FILE = "tools/tidy_allow.txt"

# The upper half uses RDMA through the public verbs headers alone, whatever the order would permit.
FORBIDDEN_INCLUDES = {(upper, "rdma") for upper in ("farmem", "files", "replica")}

# Names that are calls into the kernel wherever they stand alone.
SYSTEM_CALLS = """
    socket socketpair bind connect accept accept4 listen sendto sendmsg sendmmsg recvfrom recvmsg
    recvmmsg getsockopt setsockopt getsockname getpeername shutdown mmap munmap mremap mprotect
    madvise open openat creat ioctl fcntl futex syscall pipe pipe2 dup2 dup3 fork vfork waitpid
    execv execve execvp execvpe execl execlp posix_spawn posix_spawnp eventfd signalfd inotify_init1
    memfd_create shm_open userfaultfd setns unshare prctl getrandom getentropy clock_gettime
    clock_nanosleep nanosleep usleep gettimeofday epoll_\\w+ timerfd_\\w+ process_vm_\\w+
""".split()
# Common words: a call into the kernel only when written with the global `::`.
SYSTEM_CALLS_GLOBAL = """
    read write close send recv poll select time stat fstat unlink dup kill mount sleep access
""".split()
SYSTEM_TYPES = r"std::random_device|std::this_thread::sleep_\w+|\w+_clock::now"

SYSTEM_CALL_PATTERN = re.compile(
    r"(?<![\w.])(?P<name>" + "|".join(SYSTEM_CALLS) + r")\s*\("
    r"|(?<![\w>:])(?P<all>::)(?P<global>" + "|".join(SYSTEM_CALLS_GLOBAL) + r")\s*\("
    r"|(?P<type>" + SYSTEM_TYPES + ")")
NAMED_LAMBDA = re.compile(r"\bauto (\w+) = \[")
DECLARED, CALLED, CALLED_GLOBALLY = "declared", "called", "called with ::"
WORDS_BEFORE_A_CALL = {"return", "co_return", "co_await", "else", "do", "case", "throw", "not"}

LITERALS_AND_COMMENTS = re.compile(
    r'R"(?P<mark>[^()\s\\]{0,16})\(.*?\)(?P=mark)"'
    r"|//(?:\\\n|[^\n])*"
    r"|/\*.*?\*/"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+'", re.DOTALL)
COMMENTED_CODE = re.compile(r"(?:^[ \t]*//[^\n]*;[ \t]*\n){3,}", re.MULTILINE)
PLACE = re.compile(r"(?<![\w.})\]$*-])/(?:home|root|work|Users)/\w")
TICKET = re.compile(r"\bissues? #?\d+\b", re.IGNORECASE)
UNDONE = re.compile(r"\b(TODO|FIXME|XXX)\b(.*)")
DIRECTIVE = re.compile(r"^[ \t]*#(?:\\\n|[^\n])*", re.MULTILINE)


def keep_newlines(text, filler=""):
    return filler + "\n" * text.count("\n")


def without_comments(text):
    """The code with comments gone and literals emptied; every line keeps its number."""
    def replace(match):
        token = match.group()
        if token.startswith("/"):
            return keep_newlines(token, " ")
        return keep_newlines(token, "''" if token.startswith("'") else '""')
    return LITERALS_AND_COMMENTS.sub(replace, text)


def line_of(text, position):
    return text.count("\n", 0, position) + 1


class File:
    """One text file of the project, with its code (comments and literals removed) on demand."""

    def __init__(self, root, path):
        self.name = path.relative_to(root).as_posix()
        self.extension = path.suffix
        self.text = path.read_text(encoding="utf-8", errors="replace")
        self.lines = self.text.splitlines()
        self.is_cpp = self.extension in CPP
        self.is_header = self.extension == ".h"
        first = self.lines[0] if self.lines else ""
        self.is_code = (self.extension in CODE or path.name == "CMakeLists.txt"
                        or first.startswith("#!"))
        self.code = without_comments(self.text) if self.is_cpp else ""
        self.system_calls = list(system_calls_of(self.code))
        parts = self.name.split("/")
        self.module = parts[1] if parts[0] == "src" and len(parts) > 2 else None
        self.is_test = self.name.endswith("_test.cc") or parts[0] == "tests"

    def included_headers(self):
        """Paths from the root: a quoted name is that of a file of src, of here, or of the root."""
        folder = self.name.rpartition("/")[0]
        for header in re.findall(r'^\s*#\s*include\s*"([^"]+)"', self.text, re.MULTILINE):
            yield from (f"src/{header}", f"{folder}/{header}", header)


class Tidy:
    def __init__(self, root):
        self.root = Path(root)
        self.findings = []
        self.noted = []
        self.layers = self.read_layers()
        self.allowed = self.read_allow_list()

    def report(self, name, line, rule, advice):
        self.findings.append(f"{name}:{line}: {rule}: {advice}")

    def read_layers(self):
        """The first column of the first table of src/README.md: the folders, lowest first."""
        text = (self.root / "src/README.md").read_text()
        table = re.search(r"^\| *folder *\|.*\n\|[-| ]+\n((?:\|.*\n?)*)", text, re.MULTILINE)
        return re.findall(r"^\| *(\w+) *\|", table.group(1), re.MULTILINE) if table else []

    def read_allow_list(self):
        """Lines `path-pattern call reason...`; returns [pattern, call, line, used]."""
        path = self.root / ALLOW_FILE
        allowed = []
        if not path.exists():
            return allowed
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            fields = line.split()
            if len(fields) < 5:
                self.report(ALLOW_FILE, number, "allow-list",
                            "write `path call reason`, the reason in three words or more")
                continue
            allowed.append([fields[0], fields[1], number, False])
        return allowed

    def is_allowed(self, name, call):
        found = False
        for entry in self.allowed:
            if fnmatch.fnmatch(name, entry[0]) and fnmatch.fnmatch(call, entry[1]):
                entry[3] = found = True
        return found

    def files(self):
        for folder, folders, names in os.walk(self.root):
            folders[:] = sorted(f for f in folders if f not in SKIPPED_FOLDERS)
            where = Path(folder)
            for child in folders:
                self.check_folder_name(where / child)
            for name in sorted(names):
                path = where / name
                if path.suffix not in NO_TEXT and path.is_file() and not path.is_symlink():
                    yield File(self.root, path)

    def check_folder_name(self, folder):
        if folder.name.lower() in BAD_FOLDERS:
            self.report(folder.relative_to(self.root).as_posix(), 1, "folder-name",
                        "a folder is a noun of the domain; say what it is about")

    def check_size(self, file):
        count = len(file.lines)
        if count > FILE_LINES_HARD:
            self.report(file.name, count, "file-size",
                        f"{count} lines; split it, {FILE_LINES_HARD} is the limit")
        elif count > FILE_LINES_SOFT:
            self.noted.append(f"{file.name}:{count}: note: past {FILE_LINES_SOFT} lines; "
                              "two ideas in one file?")
        for number, line in enumerate(file.lines, 1):
            if len(line) > COLUMNS:
                self.report(file.name, number, "columns",
                            f"{len(line)} columns; break the line at {COLUMNS}")

    def check_opening(self, file):
        if file.is_header and not file.text.startswith("//"):
            self.report(file.name, 1, "opening", "open the header with a comment of its idea")
        if file.name.endswith("_test.cc") and not file.text.startswith("// Goal:"):
            self.report(file.name, 1, "opening", "open the test with `// Goal:` and `// Method:`")

    def check_header(self, file):
        if not re.search(r"^#pragma once$", file.text, re.MULTILINE):
            self.report(file.name, 1, "pragma-once", "add `#pragma once` after the first comment")
        match = re.search(r"\busing\s+namespace\b", file.code)
        if match:
            self.report(file.name, line_of(file.code, match.start()), "using-namespace",
                        "name what is used; a header decides nothing for its includers")
        match = re.search(r"\bstd::(mutex|shared_mutex|recursive_mutex|timed_mutex|"
                          r"condition_variable\w*|atomic\w*)\b", file.code)
        if match and not re.search(r"^\s*//.*\bThreading:", file.text, re.MULTILINE):
            self.report(file.name, line_of(file.code, match.start()), "threading",
                        f"holds {match.group()}; say in a `Threading:` line who may call what")

    def check_includes(self, file):
        if file.module not in self.layers:
            self.report(file.name, 1, "layer",
                        f"folder {file.module} is not in the list of src/README.md; add its row")
            return
        rank = self.layers.index(file.module)
        for number, line in enumerate(file.lines, 1):
            match = re.match(r'\s*#\s*include\s*"([^"]+)"', line)
            if not match or match.group(1).endswith(".pb.h"):
                continue
            folder, slash, _ = match.group(1).partition("/")
            if not slash:
                advice = f'write "{file.module}/{folder}"; quotes name a file from src'
            elif folder not in self.layers:
                advice = f"{folder} is no folder of src/README.md; others' headers take <>"
            elif self.layers.index(folder) > rank:
                advice = (f"{file.module} is below {folder} in src/README.md; declare the "
                          "interface wanted here and let apps wire it")
            elif (file.module, folder) in FORBIDDEN_INCLUDES:
                advice = f"{file.module} reaches {folder} only through the public verbs headers"
            else:
                continue
            self.report(file.name, number, "layer", advice)

    def check_functions(self, file):
        for name, first, last in functions_of(file.code):
            if last - first + 1 > FUNCTION_LINES:
                self.report(file.name, first, "function-size",
                            f"{name} has {last - first + 1} lines; "
                            f"{FUNCTION_LINES} is the limit, name its steps")

    def check_system_calls(self, file, own_names):
        """`own_names`: for each header, the names of system calls that it gives to code of ours."""
        if file.module == "os" or file.is_test or file.name.startswith("bench/"):
            return
        own = set(own_names.get(file.name, ()))
        for header in file.included_headers():
            own |= own_names.get(header, set())
        for name, position, kind in file.system_calls:
            ours = kind == DECLARED or (kind == CALLED and name in own)
            if not ours and not self.is_allowed(file.name, name):
                self.report(file.name, line_of(file.code, position), "os-only",
                            f"{name} belongs to src/os; call it through os, or give a reason "
                            f"in {ALLOW_FILE}")

    def check_code_text(self, file):
        for match in re.finditer(r"\bstd::cout\b", file.code):
            self.report(file.name, line_of(file.code, match.start()), "cout",
                        "print with fmt::print, or log with ISTHMUS_LOG")
        for match in COMMENTED_CODE.finditer(file.text):
            self.report(file.name, line_of(file.text, match.start()), "commented-code",
                        "delete it; the history keeps what was")

    def check_words(self, file):
        if not any(words.search(file.text) for words in (PLACE, TICKET, UNDONE)):
            return
        for number, line in enumerate(file.lines, 1):
            if PLACE.search(line):
                self.report(file.name, number, "place",
                            "an absolute path of one machine; make it relative or a parameter")
            if TICKET.search(line):
                self.report(file.name, number, "place",
                            "say the reason itself, not the number of a ticket")
            match = UNDONE.search(line)
            if match and is_code_comment(file, line, match.start()):
                if match.group(1) != "TODO" or not re.match(r"(\([^)]*\))?: (\S+\s+){2,}\S+",
                                                           match.group(2)):
                    self.report(file.name, number, "todo",
                                "write `TODO: what, and the reason it waits`, or do it")

    def run(self):
        files = list(self.files())
        # What os declares stays special: including it does not make `connect(` a call into it.
        own_names = {f.name: {name for name, _, kind in f.system_calls if kind == DECLARED}
                     for f in files if f.module != "os"}
        for file in files:
            self.check_words(file)
            if file.is_code:
                self.check_size(file)
            if file.is_cpp:
                self.check_opening(file)
                self.check_functions(file)
                self.check_code_text(file)
                self.check_system_calls(file, own_names)
            if file.is_header:
                self.check_header(file)
            if file.is_cpp and file.module is not None:
                self.check_includes(file)
        for pattern, call, number, used in self.allowed:
            if not used:
                self.report(ALLOW_FILE, number, "allow-list",
                            f"{pattern} has no {call} any more; delete the line")
        return self.findings


def is_code_comment(file, line, position):
    """Only a program's comments promise work; its strings may name the words themselves."""
    if not file.is_code:
        return False
    marker = "//" if file.is_cpp else "#"
    return 0 <= line.find(marker) < position


def system_calls_of(code):
    """Yields (name, position, kind) for each name of a system call that is followed by `(`."""
    for match in NAMED_LAMBDA.finditer(code):
        yield match.group(1), match.start(), DECLARED
    for match in SYSTEM_CALL_PATTERN.finditer(code):
        if match.group("type"):
            yield match.group("type"), match.start(), CALLED_GLOBALLY
            continue
        if match.group("global"):
            before = code[:match.start()].rstrip()[-20:]
            word = re.search(r"(\w+)$", before)
            if word and word.group(1) not in WORDS_BEFORE_A_CALL:
                continue  # `Result<void> Socket ::read(`: somebody's member after all.
            yield match.group("global"), match.start(), CALLED_GLOBALLY
            continue
        name = match.group("name")
        before = code[max(0, match.start() - 80):match.start()].rstrip()
        if before.endswith("->"):
            continue
        if before.endswith("::"):
            owner = re.search(r"([\w>])\s*::$", before)
            if owner is None:
                yield name, match.start(), CALLED_GLOBALLY
            continue
        word = re.search(r"(\w+)$", before)
        declares = bool(word and word.group(1) not in WORDS_BEFORE_A_CALL)
        declares = declares or bool(re.search(r"(?<!&)[>*]$|(?<!&)&$|\w&&$", before))
        yield name, match.start(), DECLARED if declares else CALLED


TYPE_SCOPE = re.compile(
    r"^(?:template\s*<.*>\s*)?(?:typedef\s+)?(?:class|struct|union|enum)\b", re.DOTALL)
ATTRIBUTES = re.compile(r"\[\[.*?\]\]|alignas\s*\([^)]*\)|__attribute__\s*\(\(.*?\)\)", re.S)


def scope_kind(header):
    """What the `{` after this text opens: namespace, type, function or block."""
    header = ATTRIBUTES.sub("", header).strip()
    header = re.sub(r"^(?:public|private|protected)\s*:", "", header).strip()
    if re.match(r"^(?:inline\s+)?namespace\b", header) or re.match(r'^extern\s+""$', header):
        return "namespace"
    if TYPE_SCOPE.match(header):
        before_bases = re.split(r"(?<!:):(?!:)", header)[0]
        if "(" not in re.sub(r"<[^()]*>", "", before_bases):
            return "type"
    if ")" not in header or header.endswith(("=", "(", ",", "return")):
        return "block"
    if re.search(r"[^=!<>]=\s*\w*\s*[\[({]", header) and "operator" not in header:
        return "block"  # A table or a lambda with a name.
    return "function"


def functions_of(code):
    """Yields (name, first line, last line) of each function body of C++ code without comments."""
    code = DIRECTIVE.sub(lambda m: keep_newlines(m.group()), code)
    stack = []  # (kind, name, position of the header's first character)
    header_start = 0
    for match in re.finditer(r"[{};]", code):
        position, token = match.start(), match.group()
        inside = any(kind in ("function", "block") for kind, _, _ in stack)
        if token == "{":
            header = code[header_start:position]
            kind = "block" if inside else scope_kind(header)
            start = header_start + len(header) - len(header.lstrip())
            name = re.search(r"([\w:~]+)\s*\(", header)
            stack.append((kind, name.group(1) if name else "this function", start))
            if kind != "function" and not (kind == "block" and not inside):
                header_start = position + 1
            continue
        if token == "}" and stack:
            kind, name, start = stack.pop()
            follows = code[position + 1:position + 40].lstrip()[:1]
            if kind == "function" and follows in (",", "{"):
                continue  # A member's initialiser, not the body: the header goes on.
            if kind == "function":
                yield name, line_of(code, start), line_of(code, position)
        if token == ";" and any(kind in ("function", "block") for kind, _, _ in stack):
            continue
        if not any(kind in ("function", "block") for kind, _, _ in stack):
            header_start = position + 1


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default=Path(__file__).resolve().parent.parent)
    parser.add_argument("--notes", action="store_true", help="name files past the soft size too")
    options = parser.parse_args(arguments)
    tidy = Tidy(options.root)
    findings = tidy.run()
    for line in findings + (tidy.noted if options.notes else []):
        print(line)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
