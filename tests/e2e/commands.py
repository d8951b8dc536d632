#!/usr/bin/python3
"""What an operator types: isthmus lab, status, top, policy, capture, channel, doctor, completion.

A lab of two hosts stands for the whole program: network namespaces as root, else loopback
addresses. rping makes the traffic. Packets are judged by tshark (syntax) and scapy (ICRC).
"""
import contextlib
import json
import os
import pathlib
import pty
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402

NO_DAEMON = 3    # Exit statuses of isthmus(1).
DENIED = 4
PATIENCE = 15    # Seconds for what takes milliseconds on a machine with nothing else to do.

ICRC_JUDGE = """
import sys
from scapy.all import rdpcap
from scapy.contrib.roce import BTH
for number, packet in enumerate(rdpcap(sys.argv[1])):
    base = packet[BTH]
    body = bytes(base)
    if base.compute_icrc(body[:-4]) != body[-4:]:
        print("wrong ICRC in packet", number)
"""


def isthmus(*words, limit=30, **more):
    return subprocess.run([str(testing.ISTHMUS), *map(str, words)], capture_output=True, text=True,
                          timeout=limit, check=False, stdin=subprocess.DEVNULL, **more)


def until(true, what):
    """Waits for something another process does; its result."""
    deadline = time.monotonic() + PATIENCE
    while True:
        result = true()
        if result:
            return result
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE} s in vain: {what}")
        time.sleep(0.05)


class Lab:
    """Two hosts h1 and h2, and what runs on them."""

    def __init__(self, name):
        testing.need_isthmus()
        testing.need_programs("rping")
        self.name = name
        self.network = 1 + os.getpid() % 99
        done = isthmus("lab", "up", "--name", name, "--hosts", 2, "--network", self.network)
        if done.returncode != 0:
            raise RuntimeError(done.stdout + done.stderr)
        listed = isthmus("lab", "status", "--name", name, "--json")
        self.hosts = {host["name"]: host for host in json.loads(listed.stdout)}
        self.processes = []

    def socket(self, host):
        return self.hosts[host]["socket"]

    def exec(self, host, *words):
        process = testing.Process([testing.ISTHMUS, "lab", "exec", "--name", self.name, host,
                                   "--", *words])
        self.processes.append(process)
        return process

    def on(self, host, *words, **more):
        return isthmus("--socket", self.socket(host), *words, **more)

    def status(self, host):
        return json.loads(self.on(host, "status", "--json").stdout)

    def queue_pairs(self, host, state="RTS"):
        return [qp for function in self.status(host)["functions"]
                for qp in function["queue_pairs"] if qp["state"] == state]

    def start_traffic(self, client_host):
        """rping from a host to h1, without an end; returns both programs once data flows."""
        wanted = 2 if client_host == "h1" else 1
        server = self.exec("h1", "rping", "-s", "-a", "@h1", "-S", 5000, "-V")
        until(lambda: self.status("h1")["functions"], "rping attaches")
        client = None
        deadline = time.monotonic() + PATIENCE
        while True:
            client = self.exec(client_host, "rping", "-c", "-a", "@h1", "-S", 5000, "-V", "-C",
                               100_000_000)
            ended = client.wait(1)
            if ended is None:
                break
            if time.monotonic() > deadline or "REJECTED" not in client.output():
                raise AssertionError(testing.story("no traffic", client, server))
        until(lambda: len(self.queue_pairs("h1")) == wanted, "rping connects")
        return server, client

    def stop_programs(self):
        for process in self.processes:
            process.stop()
        self.processes.clear()
        for host in self.hosts:
            until(lambda host=host: not self.status(host)["functions"], "programs are gone")

    def close(self):
        for process in self.processes:
            process.stop()
        return isthmus("lab", "down", "--name", self.name)


class WithLab(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = Lab(f"t{os.getpid()}")
        cls.addClassCleanup(cls.lab.close)

    def setUp(self):
        self.addCleanup(self.lab.stop_programs)

    def judge_packets(self, file):
        testing.need_programs("tshark")
        bad = subprocess.run(["tshark", "-r", file, "-Y", "_ws.malformed or !infiniband"],
                             capture_output=True, text=True, check=True)
        self.assertEqual(bad.stdout, "")
        if subprocess.run(["/usr/bin/python3", "-c", "import scapy"], check=False,
                          capture_output=True).returncode != 0:
            self.skipTest("python3-scapy is not installed")
        wrong = subprocess.run(["/usr/bin/python3", "-c", ICRC_JUDGE, file], capture_output=True,
                               text=True, check=True)
        self.assertEqual(wrong.stdout, "")

    def fields(self, file, *names):
        words = [word for name in names for word in ("-e", name)]
        text = subprocess.run(["tshark", "-r", file, "-T", "fields", *words],
                              capture_output=True, text=True, check=True).stdout
        return [tuple(line.split("\t")) for line in text.splitlines()]


class Watching(WithLab):
    def test_status_shows_hosts_programs_queue_pairs_and_rates(self):
        self.lab.start_traffic("h2")
        status = self.lab.status("h2")
        self.assertEqual(status["label"], "h2")
        self.assertIn(self.lab.hosts["h2"]["address"], status["addresses"])
        function = status["functions"][0]
        self.assertEqual(function["program"], "rping")
        self.assertGreater(function["per_second"]["bytes_sent"], 0)
        self.assertGreaterEqual(len(function["memory_regions"]), 3)
        qp = function["queue_pairs"][0]
        self.assertEqual((qp["type"], qp["state"], qp["channel"]), ("RC", "RTS", "roce"))
        self.assertEqual(qp["remote_gid"], self.lab.hosts["h1"]["address"])
        text = self.lab.on("h1", "status", "--qps", "--memory").stdout
        for word in ("rping", "RTS", f"{qp['qpn']:#08x}", "region", "cm_established"):
            self.assertIn(word, text)

    def test_top_prints_once_and_ends_live_at_q(self):
        self.lab.start_traffic("h2")
        self.assertIn("rping", self.lab.on("h1", "top", "--once", "-i", 0.2).stdout)
        ours, theirs = pty.openpty()
        with subprocess.Popen([testing.ISTHMUS, "--socket", self.lab.socket("h1"), "top", "-i",
                               "0.2"], stdin=theirs, stdout=theirs, stderr=theirs) as top:
            os.close(theirs)
            shown = b""
            while b"rping" not in shown:
                shown += os.read(ours, 65536)
            os.write(ours, b"q")
            with contextlib.suppress(OSError):  # The end of a terminal is an error on Linux.
                while os.read(ours, 65536):
                    pass
            self.assertEqual(top.wait(PATIENCE), 0)
        os.close(ours)

    def test_lab_status_counts_what_runs(self):
        self.lab.start_traffic("h2")
        text = isthmus("lab", "status", "--name", self.lab.name).stdout
        row = next(line.split() for line in text.splitlines() if line.startswith("h2 "))
        self.assertEqual(row[5:7], ["1", "1"], text)


class Policy(WithLab):
    def setUp(self):
        super().setUp()
        self.file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.addCleanup(self.file.close)
        self.addCleanup(lambda: self.apply(""))

    def write(self, text):
        self.file.seek(0)
        self.file.truncate()
        self.file.write(text)
        self.file.flush()
        return self.file.name

    def apply(self, text):
        for host in self.lab.hosts:
            self.lab.on(host, "policy", "apply", self.write(text))

    def test_check_tells_what_would_go_and_apply_takes_it(self):
        _, client = self.lab.start_traffic("h2")
        deny = self.write('[[rule]]\nname = "no-rping"\nto = { port = 7174 }\ndeny = true\n')
        checked = self.lab.on("h2", "policy", "check", deny)
        self.assertIn("something from 1 of 1 live connections", checked.stdout, checked.stderr)
        self.assertIn("no-rping", checked.stdout)
        self.assertIsNone(client.wait(0.2), "a check must not end anything")
        shown = json.loads(self.lab.on("h2", "policy", "show", "--json").stdout)
        self.assertEqual([c["rule"] for c in shown["connections"]], ["default"])
        self.assertEqual(shown["connections"][0]["port"], 7174)

        applied = self.lab.on("h2", "policy", "apply", deny)
        self.assertIn("is in force", applied.stdout, applied.stderr)
        self.assertIsNotNone(client.wait(PATIENCE), "the connection has to end")
        self.assertIn("no-rping", self.lab.on("h2", "policy", "show").stdout)

    def test_a_wrong_document_changes_nothing(self):
        wrong = self.write('default = "perhaps"\n')
        for verb in ("check", "apply"):
            done = self.lab.on("h1", "policy", verb, wrong)
            self.assertEqual(done.returncode, 1)
            self.assertIn(":1:", done.stdout)
        self.assertNotIn("perhaps", self.lab.on("h1", "policy", "show").stdout)


class Capturing(WithLab):
    def capture(self, host, *words):
        folder = tempfile.TemporaryDirectory(prefix="isthmus-capture-")
        self.addCleanup(folder.cleanup)
        file = f"{folder.name}/x.pcapng"
        done = self.lab.on(host, "capture", "-w", file, *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        return file

    def test_packets_between_hosts(self):
        self.lab.start_traffic("h2")
        file = self.capture("h1", "--count", 100)
        self.judge_packets(file)
        seen = self.fields(file, "frame.interface_name", "ip.src")
        self.assertEqual(len(seen), 100)
        self.assertEqual({name for name, _ in seen}, {"isthmus-roce"})
        self.assertEqual({address for _, address in seen},
                         {self.lab.hosts[host]["address"] for host in ("h1", "h2")})

    def test_the_memory_channel_and_one_queue_pair(self):
        self.lab.start_traffic("h1")
        first, second = self.lab.queue_pairs("h1")
        self.assertEqual({first["channel"], second["channel"]}, {"memory"})
        file = self.capture("h1", "--count", 60, "--qp", f"{first['qpn']:#x}")
        self.judge_packets(file)
        seen = self.fields(file, "frame.interface_name", "frame.comment")
        self.assertEqual({name for name, _ in seen}, {"isthmus-memory"})
        for _, comment in seen:
            self.assertIn(f"qp {first['qpn']:#x},", comment)

    def test_lines_and_the_connection_set_up(self):
        process = testing.Process([testing.ISTHMUS, "--socket", self.lab.socket("h1"), "capture",
                                   "--count", 3])
        self.addCleanup(process.stop)
        until(lambda: "capturing" in process.output(), "the capture begins")
        self.lab.start_traffic("h2")
        self.assertEqual(process.wait(PATIENCE), 0)
        lines = [line for line in process.output().splitlines() if " > " in line]
        self.assertEqual(len(lines), 3)
        self.assertRegex(lines[0], r"in +roce .* UD SEND Only qp 0x1 ")

    def test_ends_when_its_time_is_over(self):
        began = time.monotonic()
        done = self.lab.on("h1", "capture", "--seconds", 0.3)
        self.assertEqual(done.returncode, 0)
        self.assertIn("0 packets captured", done.stderr)
        self.assertLess(time.monotonic() - began, PATIENCE)


class Channels(WithLab):
    def test_live_queue_pairs_switch_and_traffic_goes_on(self):
        _, client = self.lab.start_traffic("h1")
        for kind in ("roce", "memory", "roce"):
            done = self.lab.on("h1", "channel", kind, "all")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("asked 2 queue pairs", done.stdout)
            until(lambda kind=kind: {qp["channel"] for qp in self.lab.queue_pairs("h1")} == {kind},
                  f"the queue pairs change to {kind}")
            before = self.lab.queue_pairs("h1")[0]["traffic"]["messages_sent"]
            until(lambda before=before: self.lab.queue_pairs("h1")[0]["traffic"]["messages_sent"]
                  > before + 100, "messages go on")
        self.assertIsNone(client.wait(0.1), client.output()[-500:])

    def test_an_unknown_queue_pair_is_named(self):
        done = self.lab.on("h1", "channel", "roce", "0x4fff")
        self.assertEqual(done.returncode, 1)
        self.assertIn("0x004fff", done.stderr)


class Mistakes(WithLab):
    def test_no_daemon(self):
        done = isthmus("--socket", "/tmp/isthmus-nobody-here.sock", "status")
        self.assertEqual(done.returncode, NO_DAEMON)
        self.assertIn("isthmus run", done.stderr)

    def test_another_users_daemon(self):
        testing.need_root("becoming another user")
        readable = isthmus("version", user=65534, group=65534, extra_groups=[])
        if readable.returncode != 0:
            self.skipTest("the build folder is not for every user")
        with tempfile.TemporaryDirectory(prefix="isthmus-open-") as folder:
            # In a folder everybody may enter, the socket's own mode has to keep others out.
            os.chmod(folder, 0o755)
            host = testing.Process([testing.ISTHMUSD, "--socket", f"{folder}/d.sock", "--address",
                                    testing.loopback_address(77)])
            self.addCleanup(host.stop)
            until(lambda: isthmus("--socket", f"{folder}/d.sock", "status").returncode == 0,
                  "the daemon answers")
            done = isthmus("--socket", f"{folder}/d.sock", "status", user=65534, group=65534,
                           extra_groups=[])
            self.assertEqual(done.returncode, DENIED, done.stderr)
            self.assertIn("another user", done.stderr)

    def test_unknown_hosts_and_second_labs(self):
        done = isthmus("lab", "exec", "--name", self.lab.name, "h9", "--", "true")
        self.assertIn("it has h1, h2", done.stderr)
        done = isthmus("lab", "up", "--name", self.lab.name)
        self.assertEqual(done.returncode, 1)
        self.assertIn("up already", done.stderr)

    def test_exit_statuses_of_programs_come_through(self):
        for words, status in ((["sh", "-c", "exit 7"], 7), (["no-such-program"], 127),
                              (["/etc/passwd"], 126)):
            self.assertEqual(self.lab.exec("h1", *words).wait(PATIENCE), status, words)


class Alone(unittest.TestCase):
    """What needs no lab."""

    @classmethod
    def setUpClass(cls):
        testing.need_isthmus()

    def test_a_lab_goes_completely_and_twice(self):
        name = f"u{os.getpid()}"
        lab = Lab(name)
        socket = pathlib.Path(lab.socket("h1"))
        self.assertEqual(lab.close().returncode, 0)
        self.assertFalse(socket.parent.exists())
        self.assertFalse([n for n in os.listdir("/run/netns") if f"-{name}-" in n]
                         if os.path.isdir("/run/netns") else [])
        self.assertEqual(isthmus("lab", "down", "--name", name).returncode, 0)

    def test_dry_runs_do_nothing(self):
        name = f"v{os.getpid()}"
        done = isthmus("lab", "up", "--name", name, "--dry-run")
        self.assertEqual(done.returncode, 0)
        self.assertIn("isthmusd", done.stdout)
        self.assertIn("no lab", isthmus("lab", "status", "--name", name).stderr)

    def test_doctor_judges_this_host(self):
        findings = json.loads(isthmus("doctor", "--json").stdout)
        self.assertGreaterEqual(len(findings), 10)
        for finding in findings:
            self.assertIn(finding["level"], ("ok", "warn", "missing"))
            self.assertEqual(finding["advice"] == "", finding["level"] == "ok", finding)

    def test_bash_completes(self):
        script = isthmus("_generate", "bash").stdout + """
complete_words() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _isthmus; echo "${COMPREPLY[*]}"
}
complete_words isthmus st
complete_words isthmus --socket x lab up --ho
complete_words isthmus channel ""
complete_words isthmus policy ""
"""
        done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        self.assertEqual(done.stdout.splitlines(),
                         ["status", "--hosts", "roce memory", "check apply show"])
        self.assertEqual(done.stderr, "")

    def test_zsh_reads_its_completion(self):
        testing.need_programs("zsh")
        done = subprocess.run(["zsh", "-fn"], input=isthmus("_generate", "zsh").stdout,
                              capture_output=True, text=True, check=False)
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_man_pages_are_good_troff(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(isthmus("_generate", "man", folder).returncode, 0)
            pages = sorted(os.listdir(folder))
            self.assertIn("isthmus-lab-exec.1", pages)
            self.assertIn("isthmusd.8", pages)
            if not shutil.which("groff"):
                self.skipTest("groff is not installed")
            for page in pages:
                done = subprocess.run(["groff", "-man", "-Tascii", "-P-cbou", "-ww",
                                       f"{folder}/{page}"],
                                      capture_output=True, text=True, check=True)
                self.assertEqual(done.stderr, "", page)
                self.assertIn("EXAMPLES", done.stdout, page)


if __name__ == "__main__":
    testing.main()
