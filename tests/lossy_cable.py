"""A cable between two network namespaces that loses, delays, repeats, reorders and damages RoCEv2
packets.

Each end is a TAP device called eth0; a thread here carries the frames. What happens to the n-th
packet depends on the seed and n alone. Other traffic (ARP, the TCP exchange of QP numbers) passes
unharmed: these tests are about the RoCEv2 channel. The kernel's netem would do, but not every
kernel has it.
"""
import collections
import fcntl
import os
import random
import select
import struct
import threading
import time

TUNSETIFF = 0x400454CA
TAP_WITHOUT_HEADER = 0x0002 | 0x1000  # IFF_TAP | IFF_NO_PI
FRAME_BYTES = 65536
HELD_SECONDS = 0.005  # A packet held back is sent behind the next one, or after this.


def open_tap(namespace, address, mtu):
    namespace.skip_address_probes()
    with namespace.visit():
        tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"eth0", TAP_WITHOUT_HEADER))
    namespace.ip("address", "add", f"{address}/24", "dev", "eth0")
    namespace.ip("link", "set", "eth0", "mtu", mtu, "up")
    return tap


def is_roce(frame):
    return (frame[12:14] == b"\x08\x00" and frame[23] == 17
            and frame[36:38] == (4791).to_bytes(2, "big"))


class LossyCable:
    def __init__(self, ends, seed, loss=0.10, repeat=0.02, reorder=0.05, damage=0.02, mtu=1500,
                 delay=0.0):
        """ends: two pairs (namespace, IPv4 address), addresses of one /24.

        delay: in seconds, of every packet in either direction.
        """
        self._taps = [open_tap(namespace, address, mtu) for namespace, address in ends]
        self._random = random.Random(seed)
        self._fates = (["lose", "repeat", "hold", "damage", "pass"],
                       [loss, repeat, reorder, damage, 1 - loss - repeat - reorder - damage])
        self._held = {}
        self._delay = delay
        self._under_way = collections.deque()  # (when it arrives, frame, out), in order.
        self._stop_read, self._stop_write = os.pipe()
        self.counts = collections.Counter()
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self):
        opposite = dict(zip(self._taps, self._taps[::-1]))
        while True:
            ready, _, _ = select.select([*self._taps, self._stop_read], [], [], self._patience())
            if self._stop_read in ready:
                return
            while self._under_way and self._under_way[0][0] <= time.monotonic():
                self._write(*self._under_way.popleft()[1:])
            for tap in ready:
                self._pass_on(os.read(tap, FRAME_BYTES), opposite[tap])
            if not ready:
                for out in list(self._held):
                    self._send(self._held.pop(out), out)

    def _patience(self):
        """Until a frame has to be sent that nothing else will send."""
        waits = [HELD_SECONDS] if self._held else []
        if self._under_way:
            waits.append(max(0, self._under_way[0][0] - time.monotonic()))
        return min(waits, default=None)

    def _pass_on(self, frame, out):
        fate = self._random.choices(*self._fates)[0] if is_roce(frame) else "pass"
        if is_roce(frame):
            self.counts[fate] += 1
        if fate == "hold" and out not in self._held:
            self._held[out] = frame
            return
        if fate == "damage":
            frame = self._damaged(frame)
        if fate != "lose":
            self._send(frame, out)
        if fate == "repeat":
            self._send(frame, out)
        if out in self._held:
            self._send(self._held.pop(out), out)

    def _damaged(self, frame):
        """One bit behind the UDP header is wrong, and no UDP checksum tells: the ICRC has to."""
        frame = bytearray(frame)
        frame[40:42] = b"\0\0"
        frame[self._random.randrange(42, len(frame))] ^= 1 << self._random.randrange(8)
        return bytes(frame)

    def _send(self, frame, out):
        if self._delay and is_roce(frame):
            self._under_way.append((time.monotonic() + self._delay, frame, out))
        else:
            self._write(frame, out)

    def _write(self, frame, out):
        try:
            os.write(out, frame)
        except OSError:
            self.counts["refused by the kernel"] += 1

    def close(self):
        os.write(self._stop_write, b".")
        self._thread.join()
        for fd in (*self._taps, self._stop_read, self._stop_write):
            os.close(fd)
