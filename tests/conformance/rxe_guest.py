#!/usr/bin/python3
"""Linux soft-RoCE (rxe) in a QEMU guest: the judge of our RoCEv2 channel.

    rxe_guest.py prove            two guests talk to each other (ibv_rc_pingpong, rping)
    rxe_guest.py run COMMAND...   boots one guest, runs COMMAND in it, passes on its exit status

A Guest boots Debian's kernel with an initramfs made here (busybox and the modules of rxe) and
mounts this machine's file system read-only (9p): the guest runs the host's own rdma-core and
perftest. Its network card is a TAP device on a bridge in a network namespace of the caller's.
Commands reach it through rxe_guest_agent.py. Without KVM a boot takes a few seconds.

Debian's cloud kernel has no rdma_rxe, so a kernel of linux-image-amd64 is used: an installed one,
or else the package is downloaded and unpacked (never installed) below build/rxe_guest.
"""
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import rxe_guest_agent as agent  # noqa: E402

CACHE = testing.SOURCE / "build" / "rxe_guest"
BOOT_SECONDS = 90
# In load order; what they depend on is found by modinfo. rxe needs crc32 at "rdma link add".
MODULES = ("virtio_pci", "virtio_net", "9pnet_virtio", "9p", "crc32_generic", "rdma_rxe",
           "rdma_ucm")
INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for module in $(cat /modules/order); do insmod /modules/$module || echo "no $module"; done
mount -t 9p -o trans=virtio,version=9p2000.L,ro,cache=loose,msize=262144 hostroot /root || exec sh
for folder in proc sys dev; do mount --move /$folder /root/$folder; done
for folder in tmp run; do mount -t tmpfs tmpfs /root/$folder; done
new=/root; cat /agent.py >$new/run/agent.py
exec switch_root -c /dev/console /root /usr/bin/python3 -B /run/agent.py $address $mtu
"""


def find_kernel():
    """The kernel image and the folder of its modules."""
    for root in (pathlib.Path("/"), CACHE / "kernel"):
        for rxe in sorted(root.glob("lib/modules/*/kernel/drivers/infiniband/sw/rxe/rdma_rxe.ko"),
                          reverse=True):
            modules = rxe.parents[5]
            image = root / "boot" / f"vmlinuz-{modules.name}"
            if image.exists():
                return image, modules
    return None


def download_kernel():
    depends = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], text=True,
                             capture_output=True).stdout
    names = [line.split()[-1] for line in depends.splitlines() if "Depends: linux-image" in line]
    with tempfile.TemporaryDirectory() as folder:
        result = subprocess.run(["apt-get", "download", *names[:1]], cwd=folder, text=True,
                                capture_output=True)
        packages = list(pathlib.Path(folder).glob("*.deb"))
        if not names or not packages:
            raise unittest.SkipTest("no kernel with rdma_rxe: install linux-image-amd64 ("
                                    + (result.stderr.strip().splitlines() or ["?"])[-1] + ")")
        partial = CACHE / "kernel.partial"
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        subprocess.run(["dpkg-deb", "-x", packages[0], partial], check=True)
        shutil.rmtree(CACHE / "kernel", ignore_errors=True)
        partial.rename(CACHE / "kernel")


def module_files(folder, names):
    """The files of `names` and all they depend on, in load order; a built-in one has none."""
    files = {path.stem.replace("-", "_"): path for path in folder.rglob("*.ko")}
    order = []

    def visit(name):
        path = files.get(name.replace("-", "_"))
        if path is None or path in order:
            return
        depends = subprocess.run(["modinfo", "-F", "depends", path], check=True, text=True,
                                 capture_output=True).stdout.strip()
        for other in filter(None, depends.split(",")):
            visit(other)
        order.append(path)

    for name in names:
        visit(name)
    if not any(path.stem == "rdma_rxe" for path in order):
        raise RuntimeError(f"no rdma_rxe below {folder}")
    return order


def add_program(root, program):
    """Copies a program to /bin below `root`, and the libraries that it needs."""
    shutil.copy(program, root / "bin")
    libraries = subprocess.run(["ldd", program], text=True, capture_output=True).stdout.split()
    for library in filter(lambda word: word.startswith("/"), libraries):
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])


def add_busybox(root, applets):
    for name in ("bin", "proc", "sys", "dev"):
        (root / name).mkdir()
    add_program(root, pathlib.Path(shutil.which("busybox")))
    for applet in applets:
        (root / "bin" / applet).symlink_to("busybox")


def write_initramfs(root, init, output):
    (root / "init").write_text(init)
    (root / "init").chmod(0o755)
    names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, input=names,
                             check=True, capture_output=True).stdout
    output.write_bytes(archive)


def build_initramfs(modules, output):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        add_busybox(root, ("sh", "mount", "insmod", "cat", "echo", "switch_root"))
        for name in ("root", "modules"):
            (root / name).mkdir()
        order = module_files(modules, MODULES)
        for path in order:
            shutil.copy(path, root / "modules")
        (root / "modules/order").write_text("\n".join(path.name for path in order))
        shutil.copy(agent.__file__, root / "agent.py")
        write_initramfs(root, INIT, output)


class GuestProcess:
    """A program in the guest; the same face as isthmus_testing.Process."""

    def __init__(self, connection, argv, env, title):
        self.title = title
        self._connection = connection
        self._output = []
        self._status = None
        self._send(argv=[str(word) for word in argv], env=env)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _send(self, **fields):
        self._connection.sendall(json.dumps(fields).encode() + b"\n")

    def _read(self):
        with self._connection.makefile() as lines:
            for line in lines:
                answer = json.loads(line)
                self._output.append(answer.get("output", ""))
                if "status" in answer:
                    self._status = answer["status"]
                    break

    def output(self):
        return "".join(self._output)

    def wait(self, limit):
        self._reader.join(limit)
        return None if self._reader.is_alive() else self._status

    def signal(self, number):
        self._send(signal=number)

    def stop(self):
        try:
            self._connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # The program has ended and the guest has closed its side.
        self._reader.join(testing.START_SECONDS)
        self._connection.close()


class Network:
    """A namespace with a bridge, 10.99.0.1, into which guests and our own hosts are plugged."""

    address = "10.99.0.1"

    def __init__(self, mtu=1500):
        self.mtu = mtu
        self.namespace = testing.Namespace()
        self._taps = 0
        self.namespace.skip_address_probes()
        self.namespace.ip("link", "add", "eth0", "type", "bridge")
        self.namespace.ip("link", "set", "eth0", "mtu", mtu, "up")
        self.namespace.ip("address", "add", f"{self.address}/24", "dev", "eth0")

    def add_tap(self):
        self._taps += 1
        name = f"tap{self._taps}"
        self.namespace.ip("tuntap", "add", "dev", name, "mode", "tap", "vnet_hdr")
        self.namespace.ip("link", "set", name, "mtu", self.mtu, "master", "eth0", "up")
        return name, self._taps

    def connect(self, address, port, limit):
        with self.namespace.visit():
            return socket.create_connection((address, port), limit)

    def close(self):
        self.namespace.close()


class Guest:
    """One booted guest; a Host in the sense of isthmus_testing."""

    device = "rxe0"

    def __init__(self, network, memory_mib=512):
        testing.need_programs("qemu-system-x86_64", "busybox", "cpio", "modinfo", "rdma",
                              "ibv_devinfo")
        if not find_kernel():
            download_kernel()
        image, modules = find_kernel()
        CACHE.mkdir(parents=True, exist_ok=True)
        tap, number = network.add_tap()
        self.address = f"10.99.0.{10 + number}"
        self.label = f"rxe {self.address}"
        self._network = network
        self._folder = tempfile.TemporaryDirectory(prefix="isthmus-rxe-")
        self.console = pathlib.Path(self._folder.name, "console")
        initramfs = pathlib.Path(self._folder.name, "initramfs")
        build_initramfs(modules, initramfs)
        self._qemu = testing.Process([
            *network.namespace.prefix, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max",
            "-m", memory_mib, "-nodefaults", "-no-user-config", "-nographic", "-no-reboot",
            "-kernel", image, "-initrd", initramfs, "-append",
            f"console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable "
            f"address={self.address}/24 mtu={network.mtu}",
            "-serial", f"file:{self.console}",
            "-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no",
            "-device", f"virtio-net-pci,netdev=net,romfile=,mac=52:54:00:99:00:{number:02x}",
            "-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap",
            "-device", "virtio-9p-pci,fsdev=root,mount_tag=hostroot"])
        self._gid_index = None

    def wait_boot(self, limit=BOOT_SECONDS):
        deadline = time.monotonic() + limit
        while True:
            try:
                self._network.connect(self.address, agent.PORT, 1).close()
                return self
            except OSError:  # No route, refused, or no answer yet.
                if self._qemu.wait(0.2) is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{self.label} did not boot\n{self._qemu.output()}\n"
                                       f"{self.console_text()}") from None

    def console_text(self):
        return self.console.read_text(errors="replace")[-4000:] if self.console.exists() else ""

    def spawn(self, argv, **env):
        connection = self._network.connect(self.address, agent.PORT, testing.START_SECONDS)
        connection.settimeout(None)
        return GuestProcess(connection, argv, env,
                            f"{self.label}: {' '.join(map(str, argv))}")

    def gid_index(self):
        if self._gid_index is None:
            self._gid_index = testing.find_gid_index(self)
        return self._gid_index

    def close(self):
        self._qemu.stop()
        self._folder.cleanup()


def prove():
    started = time.monotonic()
    network = Network()
    guests = []
    try:
        guests = [Guest(network), Guest(network)]
        for guest in guests:
            guest.wait_boot()
        print(f"two guests booted in {time.monotonic() - started:.1f} s")
        server, client = guests
        pingpong = ["ibv_rc_pingpong", "-d", "rxe0", "-c", "-n", "100", "-g", server.gid_index()]
        rping = ["rping", "-v", "-V", "-C", "10", "-a", server.address]
        for name, server_argv, client_argv in (
                ("ibv_rc_pingpong", pingpong, [*pingpong, server.address]),
                ("rping", [*rping, "-s"], [*rping, "-c"])):
            begun = time.monotonic()
            story = testing.run_pair(server, client, server_argv, client_argv)
            print(f"{name}: {'ok' if story is None else story} "
                  f"({time.monotonic() - begun:.1f} s)")
            if story:
                return 1
        return 0
    finally:
        for guest in guests:
            guest.close()
        network.close()


def run_in_guest(argv):
    network = Network()
    guest = None
    try:
        guest = Guest(network).wait_boot()
        status, output = testing.run(guest, argv, limit=3600)
        print(output, end="")
        return status
    finally:
        if guest:
            guest.close()
        network.close()


def main(words):
    try:
        if words == ["prove"]:
            return prove()
        if len(words) > 1 and words[0] == "run":
            return run_in_guest(words[1:])
    except unittest.SkipTest as reason:
        print(f"skip: rxe_guest: {reason}")
        return testing.NOTHING_RAN
    return __doc__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
