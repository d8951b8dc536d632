#!/usr/bin/python3
"""What rdma-core's inspection programs see: the device, its port and its GIDs."""
import pathlib
import re
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import isthmus_testing as testing  # noqa: E402
import placements  # noqa: E402


class Device(placements.Placed):
    def output_of(self, *argv):
        status, text = testing.run(self.server, argv)
        self.assertEqual(status, 0, text)
        self.assertNotIn("no version information", text)
        return text

    def test_ibv_devices_lists_one_device_with_a_guid(self):
        rows = self.output_of("ibv_devices").splitlines()[2:]
        self.assertEqual(len(rows), 1, rows)
        name, guid = rows[0].split()
        self.assertEqual(name, self.server.device)
        self.assertRegex(guid, "^[0-9a-f]{16}$")
        self.assertNotEqual(int(guid, 16), 0)

    def test_ibv_devinfo_shows_an_active_ethernet_port(self):
        text = self.output_of("ibv_devinfo", "-d", self.server.device)
        self.assertRegex(text, r"state:\s+PORT_ACTIVE")
        self.assertRegex(text, r"link_layer:\s+Ethernet")

    def test_ibv_devinfo_lists_the_gid_of_the_address(self):
        text = self.output_of("ibv_devinfo", "-v", "-d", self.server.device)
        gids = re.findall(r"GID\[\s*(\d+)\]:\s+(\S+), RoCE v2", text)
        self.assertIn(f"::ffff:{self.server.address}", [gid for _, gid in gids], text)
        self.assertEqual(gids[0][0], "0")

    def test_ibv_devinfo_says_no_to_an_unknown_device(self):
        status, text = testing.run(self.server, ["ibv_devinfo", "-d", "nosuchdevice"])
        self.assertNotEqual(status, 0, text)
        self.assertIn("wasn't found", text)

    def test_ibv_asyncwatch_opens_the_device_and_waits(self):
        process = self.server.spawn(["ibv_asyncwatch", "-d", self.server.device])
        try:
            self.assertIsNone(process.wait(1), process.output())
            process.signal(signal.SIGINT)
            self.assertIsNotNone(process.wait(5), "still there after SIGINT")
        finally:
            process.stop()


placements.multiply(globals(), Device, ("same_host", "two_namespaces"))

if __name__ == "__main__":
    testing.main()
