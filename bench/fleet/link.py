"""Simulates a slow network with packet loss on this machine.

The simulated network has two TUN devices (virtual network devices), one of them in a network
namespace. A child process forwards the packets between the two devices, delays each packet, and
drops some packets. `tc netem` would do the same, but some kernels lack `tc netem`. The kernel's own
TCP runs over the simulated network, and sends lost packets again. The simulation needs root and
/dev/net/tun.
"""

import ctypes
import fcntl
import heapq
import multiprocessing
import os
import random
import select
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

T = TypeVar("T")

NEAR, FAR = "10.97.41.1", "10.97.41.2"
_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_NEW_NETWORK = 0x40000000


@dataclass(frozen=True)
class Link:
    """A simulated network between this machine (the near end) and a network namespace (the far
    end)."""

    space: str
    _control: Any

    @property
    def within(self) -> tuple[str, ...]:
        """The prefix that makes a command run at the far end."""
        return ("ip", "netns", "exec", self.space)

    def set(self, delay: float, loss: float) -> None:
        """Sets the delay in each direction, in seconds, and the share of packets that get lost, a
        number from 0 to 1."""
        self._control.send((delay, loss))

    def threads(self, count: int) -> ThreadPoolExecutor:
        """Returns a thread pool. Its threads run in this process, but in the network namespace of
        the far end."""
        return ThreadPoolExecutor(count, initializer=enter, initargs=(self.space,))

    def call(self, function: Callable[[], T]) -> T:
        """Calls `function` in a thread at the far end, and returns the value that `function`
        returns."""
        with self.threads(1) as pool:
            return pool.submit(function).result()


def enter(space: str) -> None:
    """Puts the calling thread into the network namespace with the name `space`."""
    with open(f"/run/netns/{space}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), _NEW_NETWORK) != 0:
            raise OSError(ctypes.get_errno(), "setns")


@contextmanager
def link() -> Iterator[Link]:
    """Yields a new simulated network, which at first delays and drops no packets. Removes the
    network after the `with` block."""
    space = f"realm-scale-{os.getpid()}"
    near, far = f"rn{os.getpid()}", "far0"
    _ip("netns", "add", space)
    here, there = multiprocessing.Pipe()
    relay = multiprocessing.Process(target=_relay, args=(space, near, far, there), daemon=True)
    relay.start()
    try:
        here.recv()
        _ip("addr", "add", f"{NEAR}/30", "dev", near)
        _ip("link", "set", near, "up")
        for command in (
            ("addr", "add", f"{FAR}/30", "dev", far),
            ("link", "set", far, "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", space, *command)
        yield Link(space, here)
    finally:
        relay.kill()
        relay.join()
        _ip("netns", "del", space)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _device(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def _relay(space: str, near: str, far: str, control: Connection) -> None:
    """Makes the devices `near` and `far`, and forwards packets between them until this process is
    killed. Receives new values of the delay and the loss from `control`."""
    one = _device(near)
    enter(space)
    other = _device(far)
    control.send("ready")
    to = {one: other, other: one}
    delay, loss = 0.0, 0.0
    # A heap of packets. Each element has the time when the packet is due, a count, the packet's
    # destination, and the packet. The count keeps packets with the same due time in order.
    waiting: list[tuple[float, int, int, bytes]] = []
    count = 0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, device, packet = heapq.heappop(waiting)
            try:
                os.write(device, packet)
            except OSError:
                continue  # the device is down or full, so the packet is lost
        pause = max(0, waiting[0][0] - now) if waiting else None
        readable, _, _ = select.select([one, other, control.fileno()], [], [], pause)
        for source in readable:
            if source == control.fileno():
                delay, loss = control.recv()
                continue
            packet = os.read(source, 65536)
            if random.random() >= loss:
                count += 1
                heapq.heappush(waiting, (time.monotonic() + delay, count, to[source], packet))
