"""The soft-RoCE guest's first process: runs commands for the tests (see rxe_guest.py).

Usage: rxe_guest_agent.py ADDRESS/BITS MTU

One TCP connection is one command. The client sends a JSON line {"argv": [...], "env": {...}};
answers are JSON lines {"output": TEXT}, then {"status": NUMBER}. A connection that the client
closes, or a {"signal": NUMBER} line from it, ends the command.
"""
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading

PORT = 7000


class Command(socketserver.StreamRequestHandler):
    def handle(self):
        request = json.loads(self.rfile.readline())
        try:
            process = subprocess.Popen(
                request["argv"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, start_new_session=True,
                env={**os.environ, **request.get("env", {})})
        except OSError as error:
            self._answer(output=f"{error}\n")
            self._answer(status=127)
            return
        threading.Thread(target=self._follow_client, args=(process,), daemon=True).start()
        while text := os.read(process.stdout.fileno(), 65536):
            self._answer(output=text.decode(errors="replace"))
        self._answer(status=process.wait())

    def _answer(self, **fields):
        try:
            self.wfile.write(json.dumps(fields).encode() + b"\n")
        except OSError:
            pass  # The client left; _follow_client ends the command.

    def _follow_client(self, process):
        for line in self.rfile:
            self._signal(process, json.loads(line)["signal"])
        self._signal(process, signal.SIGKILL)

    @staticmethod
    def _signal(process, number):
        if process.poll() is None:
            os.killpg(process.pid, number)


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64


def configure(address, mtu):
    for words in (f"ip link set lo up", f"ip link set eth0 mtu {mtu}",
                  f"ip address add {address} dev eth0", "ip link set eth0 up",
                  "rdma link add rxe0 type rxe netdev eth0"):
        subprocess.run(words.split(), check=True)


if __name__ == "__main__":
    os.environ["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    configure(sys.argv[1], sys.argv[2])
    Server(("", PORT), Command).serve_forever()
