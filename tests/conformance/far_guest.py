#!/usr/bin/python3
"""A QEMU guest whose RAM is far: it boots, uses most of its memory, and shuts down.

Debian's kernel with an initramfs made here, once on plain QEMU and once for each share of the
memory that QEMU took then. What the guest says that it found in its memory must be equal. Without
KVM: QEMU's own threads emulate the processor, and so touch every page that the guest does.
"""
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
import far_memory  # noqa: E402
import isthmus_testing as testing  # noqa: E402
import rxe_guest  # noqa: E402

RAM_MIB = 512
WORK_MIB = 400
FAR = "1200M"
# What QEMU has that is never far: the translated code, stacks.
NEVER_FAR = 128 * far_memory.MIB
SHARES = [int(share) for share in os.environ.get("ISTHMUS_FAR_SHARES", "25").split(",")]

INIT = f"""#!/bin/sh
mount -t proc proc /proc
far_guest_work {WORK_MIB}
echo "work: status $?"
read anything
poweroff -f
"""


class Guest(far_memory.WithNode):
    @classmethod
    def setUpClass(cls):
        testing.need_programs("qemu-system-x86_64", "busybox", "cpio", "gcc")
        super().setUpClass()
        if not rxe_guest.find_kernel():
            rxe_guest.download_kernel()
        cls.kernel, _ = rxe_guest.find_kernel()
        cls.initramfs = cls.folder / "initramfs"
        work = cls.folder / "far_guest_work"
        subprocess.run(["gcc", "-O2", far_memory.HERE / "far_guest_work.c", "-o", work], check=True)
        with tempfile.TemporaryDirectory() as folder:
            root = pathlib.Path(folder)
            rxe_guest.add_busybox(root, ("sh", "mount", "echo", "poweroff"))
            rxe_guest.add_program(root, work)
            rxe_guest.write_initramfs(root, INIT, cls.initramfs)

    def boot(self, wrap):
        """What the guest said about its work, and what QEMU had here then."""
        argv = wrap(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", str(RAM_MIB),
                     "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
                     "-serial", "stdio", "-kernel", str(self.kernel), "-initrd",
                     str(self.initramfs), "-append",
                     "console=ttyS0 quiet panic=-1 mitigations=off tsc=reliable"])
        status, text, here = self.run_and_look([str(word) for word in argv], "", "work: status")
        self.assertEqual(status, 0, text[-3000:])
        said = [line.strip() for line in text.splitlines() if line.startswith("work:")]
        self.assertEqual(said[-1:], ["work: status 0"], text[-3000:])
        return said, here

    def test_guest(self):
        native, peak = self.boot(lambda argv: argv)
        self.assertGreater(peak, WORK_MIB * far_memory.MIB)
        for share in SHARES:
            with self.subTest(share=share):
                local = peak * share // 100
                said, here = self.boot(lambda argv: self.far_argv(local, argv, FAR))
                self.assertEqual(said, native)
                self.assertLess(here, local + NEVER_FAR)


if __name__ == "__main__":
    testing.main()
