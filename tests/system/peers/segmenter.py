# SPDX-License-Identifier: Apache-2.0
"""The Linux kernel as an oracle for segmentation: frames with a virtio_net_hdr in, segments out.

`Segmenter` starts this file again in a network namespace of its own, where two TAP devices stand on
a bridge. What is written into the first with a virtio_net_hdr leaves the second, which takes no
offloads, so the kernel completes and cuts it in software. Nothing outside the namespace is touched.

Used by tests/system/test_segmentation.py. Linux: Documentation/networking/tuntap.rst,
net/core/gso.c.
"""

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from typing import Self

TUNSETIFF, TUNSETOFFLOAD, TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
IFF_TAP, IFF_NO_PI, IFF_VNET_HDR = 0x2, 0x1000, 0x4000
VNET_HEADER = 10
REFUSED = 0xFFFFFFFF  # instead of a number of frames: the kernel did not take the frame
READY = b"ready"
LONGEST = 1 << 17
# A frame that goes behind each one, so that the end of its segments is seen.
MARK = bytes.fromhex("020000000002" "020000000001" "88b6") + b"the end of the segments".ljust(46)
SET_UP = """
ip link add name by-bridge type bridge stp_state 0 mcast_snooping 0
ip link set by-in mtu 9000 master by-bridge up
ip link set by-out mtu 9000 master by-bridge up
ip link set by-bridge up
"""


class Segmenter:
    """The kernel behind two pipes. OSError where there are no namespaces, TAPs or bridges."""

    def __init__(self) -> None:
        self._child = subprocess.Popen(
            ["unshare", "--net", sys.executable, __file__], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._read(len(READY))

    def segments(self, header: bytes, frame: bytes) -> list[bytes] | None:
        """What the kernel makes of a frame behind its virtio_net_hdr; None where it refuses it."""
        assert self._child.stdin is not None
        data = header + frame
        self._child.stdin.write(struct.pack("=I", len(data)) + data)
        self._child.stdin.flush()
        (count,) = struct.unpack("=I", self._read(4))
        if count == REFUSED:
            return None
        return [self._read(struct.unpack("=I", self._read(4))[0]) for _ in range(count)]

    def _read(self, n: int) -> bytes:
        assert self._child.stdout is not None
        data = self._child.stdout.read(n)
        if len(data) < n:
            raise OSError(self._end())
        return data

    def _end(self) -> str:
        errors = self._child.communicate(timeout=10)[1]
        return errors.decode("utf-8", "replace").strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()


# ---------------------------------------------------------------- inside the namespace
def open_tap(name: str) -> int:
    """A TAP device with a virtio_net_hdr that takes no offloads; -> its file descriptor."""
    fd = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(),
                                           IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
    fcntl.ioctl(fd, TUNSETVNETHDRSZ, struct.pack("i", VNET_HEADER))
    fcntl.ioctl(fd, TUNSETOFFLOAD, 0)
    return fd


def set_up() -> tuple[int, int]:
    """The devices and the bridge; -> file descriptors to write to and to read from."""
    for name in ("all", "default"):
        with open(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6", "w") as file:
            file.write("1")
    taps = open_tap("by-in"), open_tap("by-out")
    for line in SET_UP.strip().splitlines():
        subprocess.run(line.split(), check=True, timeout=10)
    return taps


def until_mark(tap: int) -> Iterator[bytes]:
    """The frames that leave, with their headers, up to the mark."""
    while True:
        data = os.read(tap, LONGEST)
        if data[VNET_HEADER:] == MARK:
            return
        if data[VNET_HEADER : VNET_HEADER + 12] == MARK[:12]:
            yield data


def serve() -> None:
    """Answer one frame after the other, until standard input ends."""
    first, second = set_up()
    source, answers = sys.stdin.buffer, sys.stdout.buffer
    answers.write(READY)
    answers.flush()
    while length := source.read(4):
        data = source.read(struct.unpack("=I", length)[0])
        try:
            os.write(first, data)
        except OSError:
            answers.write(struct.pack("=I", REFUSED))
        else:
            os.write(first, bytes(VNET_HEADER) + MARK)
            frames = list(until_mark(second))
            # Nothing is left to do: no NEEDS_CSUM, no GSO (DATA_VALID may be set).
            assert all(frame[0] & 1 == frame[1] == 0 for frame in frames), frames
            answers.write(struct.pack("=I", len(frames)))
            for frame in frames:
                answers.write(struct.pack("=I", len(frame) - VNET_HEADER) + frame[VNET_HEADER:])
        answers.flush()


if __name__ == "__main__":
    serve()
