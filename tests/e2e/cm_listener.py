"""Run by faults.py: a server that waits for one connection request, as programs do.

cm_listener.py (block|poll) ADDRESS PORT: blocks in rdma_get_cm_event, or polls the descriptor of
its event channel, which it made non-blocking. Says `listening`, and `request` at its end.
"""
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import sys

RDMA_PS_TCP = 0x106
RDMA_CM_EVENT_CONNECT_REQUEST = 4
cm = ctypes.CDLL("librdmacm.so.1", use_errno=True)


class EventChannel(ctypes.Structure):
    _fields_ = [("fd", ctypes.c_int)]


class Event(ctypes.Structure):
    _fields_ = [("id", ctypes.c_void_p), ("listen_id", ctypes.c_void_p), ("event", ctypes.c_int)]


cm.rdma_create_event_channel.restype = ctypes.POINTER(EventChannel)


def check(result, call):
    if result != 0:
        raise OSError(ctypes.get_errno(), call)


def next_event(channel, wait):
    event = ctypes.POINTER(Event)()
    while cm.rdma_get_cm_event(channel, ctypes.byref(event)) != 0:
        if ctypes.get_errno() != errno.EAGAIN:
            raise OSError(ctypes.get_errno(), "rdma_get_cm_event")
        wait()
    return event


def main(how, address, port):
    channel = cm.rdma_create_event_channel()
    identifier = ctypes.c_void_p()
    check(cm.rdma_create_id(channel, ctypes.byref(identifier), None, RDMA_PS_TCP), "create")
    name = struct.pack("=H", socket.AF_INET) + struct.pack(">H", int(port))
    name += socket.inet_aton(address) + bytes(8)
    check(cm.rdma_bind_addr(identifier, name), "bind")
    check(cm.rdma_listen(identifier, 5), "listen")
    print("listening", flush=True)
    poll = select.poll()
    if how == "poll":
        fd = channel.contents.fd
        fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) | os.O_NONBLOCK)
        poll.register(fd, select.POLLIN)
    event = next_event(channel, poll.poll)
    if event.contents.event != RDMA_CM_EVENT_CONNECT_REQUEST:
        sys.exit(f"event {event.contents.event}")
    print("request", flush=True)


main(*sys.argv[1:])
