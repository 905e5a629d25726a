# SPDX-License-Identifier: Apache-2.0
"""testpmd as a mirror, and who looks into it: frames come back with their addresses swapped.

Used by the matrix. A mirror has any number of virtio_user ports; what comes in at a port goes out
of the same one (`macswap`, topology `loop`), on the queue of the same number. The guest beside it,
on the same network, sends numbered frames of several flows and compares every byte that returns.
"""

import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random

from byway.testing.guest import Guest
from tests.system.peers import testpmd
from tests.system.peers.testpmd import PortStats, VirtioUser, parse_port_stats

SIZES = (60, 64, 128, 129, 300, 590, 1514)
ADDRESSES = 12  # bytes: destination, source
NOISE = Random(22).randbytes(1 << 16)
UDP = 17
MAX_SENDING = 4096  # frames that a port lets lie in its ring after they were sent
STATIONS = (b"\x0a\0\0\1", b"\x0a\0\0\2")
IPV4 = b"\x08\x00"
DRIVER = "pmd.net.virtio.init"  # the component that logs which functions it chose


def numbered(to: bytes, source: bytes, number: int, flows: int) -> bytes:
    """Frame `number`: UDP over IPv4 of flow `number % flows`, padded with noise of its own."""
    size = SIZES[number % len(SIZES)]
    start = number * 7919 % (len(NOISE) - size)
    payload = struct.pack(">Q", number) + NOISE[start : start + size - 50]
    udp = struct.pack(">HHHH", 1024 + number % flows, 9, 8 + len(payload), 0)
    length = 20 + len(udp) + len(payload)
    network = struct.pack(">BBHHHBBH4s4s", 0x45, 0, length, 0, 0, 64, UDP, 0, *STATIONS)
    return to + source + IPV4 + network + udp + payload


def look_into(guest: Guest, mac: bytes, count: int, flows: int, window: int) -> None:
    """Send `count` frames to the mirror at `mac`, at most `window` unanswered.

    AssertionError where a frame does not come back, comes twice, comes changed, or overtakes
    another of its flow.
    """
    waiting: list[list[int]] = [[] for _ in range(flows)]  # the numbers in flight, by flow
    sent = returned = 0
    while returned < count:
        fresh = range(sent, min(count, returned + window))
        frames = [numbered(mac, guest.mac, number, flows) for number in fresh]
        for number in range(sent, sent + guest.send(frames)):
            waiting[number % flows].append(number)
            sent += 1
        got = guest.receive_until(1, 5.0)
        assert got, f"{returned} of {count} frames came back; none of {waiting} within 5 s"
        for frame in got:
            number = struct.unpack_from(">Q", frame, 42)[0]
            expected = waiting[number % flows].pop(0)
            assert number == expected, f"frame {number} overtook {expected} of its flow"
            right = numbered(mac, guest.mac, number, flows)
            assert frame[:ADDRESSES] == guest.mac + mac, f"frame {number}: {frame[:ADDRESSES]!r}"
            assert frame[ADDRESSES:] == right[ADDRESSES:], f"frame {number} came back changed"
            returned += 1


class Mirror(testpmd.Testpmd):
    """A testpmd whose ports each send back what they receive."""

    def __init__(self, folder: Path, ports: Sequence[VirtioUser], *, cpu: int, name: str) -> None:
        queues, size = ports[0].queues, ports[0].queue_size
        assert all((port.queues, port.queue_size) == (queues, size) for port in ports)
        eal = ["--single-file-segments", f"--log-level={DRIVER}:debug", "-v"]
        for index, port in enumerate(ports):
            eal += ["--vdev", port.vdev(index)]
        app = ["--forward-mode=macswap", "--port-topology=loop", f"--rxq={queues}"]
        sending = min(size, MAX_SENDING)
        app += [f"--txq={queues}", f"--txd={sending}", f"--rxd={size}"]
        # The rings to receive are always full; sent frames are taken back when room gets scarce.
        mbufs = 8192 + (size + sending) * queues * len(ports)
        self.ports = len(ports)
        super().__init__(name, folder, cpu, 128 + mbufs // 256, False, eal, app, mbufs)

    def reflect(self) -> None:
        """Start forwarding."""
        last = self.ports - 1
        self.command("start", rf"port {last}: RX queue number.*TX RS bit threshold=0\s")

    def paths(self) -> list[str]:
        """What functions the driver chose for each port, as in "inorder Tx, standard Rx"."""
        text = self.output()
        return [
            ", ".join(dict.fromkeys(re.findall(rf"using (.*?) path on port {index}\b", text)))
            for index in range(self.ports)
        ]

    def stats(self) -> list[PortStats]:
        """The ports' counters."""
        last = self.ports - 1
        end = rf"statistics for port {last}.*Tx-pps:.*####\s"
        return parse_port_stats(self.command("show port stats all", end))

    def version(self) -> str:
        """DPDK's version, as in "22.11.11"."""
        found = re.search(r"RTE Version: 'DPDK (\d+(?:\.\d+)+)", self.output())
        if found is None:
            raise self.error("did not say its version")
        return found.group(1)

    def used_queues(self) -> set[tuple[int, int]]:
        """(port, queue) of each queue that has got frames; forwarding ends.

        testpmd tells queues apart only where a port has several.
        """
        return set(busy_queues(self.command("stop", r"\nDone\.")))


def busy_queues(text: str) -> Iterator[tuple[int, int]]:
    """(port, queue) of each stream with received frames, from the answer to `stop`."""
    pattern = r"RX Port=\s*(\d+)/Queue=\s*(\d+).*?RX-packets:\s*(\d+)"
    for port, queue, count in re.findall(pattern, text, re.DOTALL):
        if int(count):
            yield int(port), int(queue)
