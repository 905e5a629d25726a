# SPDX-License-Identifier: Apache-2.0
"""The pcap port: sends the frames of a capture file once, writes what is sent to it.

Used by control; the kernels are in pcap_kernels.py.

``read`` is loaded into memory when the port opens and sent as fast as the switch takes it, from
the moment the port is up. ``write`` is made anew; frames pass through a ring of 4 MiB that the
control thread empties, and are counted as file_backlog drops where it is too slow. Their times
are those of the writing.
"""

import ctypes
import os
import time
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from byway.machine.layout import address_of, alloc
from byway.packet.batch import MAX_FRAME
from byway.packet.pcapfile import PcapError, read_frames, write_frame, write_header
from byway.ports.pcap_kernels import PCAP_IN, PCAP_OUT, WRAP
from byway.ports.port import Port, PortError
from byway.ports.record import Kind

RING = 4 << 20


class PcapPort(Port):
    """A file as a port."""

    kind = Kind.PCAP
    _file: BinaryIO | None = None  # while it is written: it may be closed without having been open

    def open(self) -> None:
        if self.config.read:
            self._load(Path(self.config.read))
        if self.config.write:
            self._start_writing(Path(self.config.write))
        self.bring_up()

    def _load(self, path: Path) -> None:
        items = []
        try:
            for frame in read_frames(path):
                items.append(len(frame).to_bytes(8, "little") + frame + bytes(-len(frame) % 8))
        except PcapError as error:
            raise PortError("read", str(error), "give an Ethernet capture in pcap format") from None
        except OSError as error:
            raise PortError("read", f"{path}: {error.strerror}", "give a readable file") from None
        self._area = np.frombuffer(b"".join(items) or b"\0", np.uint8)
        self._in = alloc(PCAP_IN, 1)
        self._in["position"] = address_of(self._area)
        self._in["end"] = address_of(self._area) + sum(map(len, items))
        self._in["counters"] = address_of(self.rx)
        self.rxqs["queue"] = address_of(self._in)

    def _start_writing(self, path: Path) -> None:
        if path.is_fifo():  # opening it would wait for a reader
            raise PortError("write", f"{path} is a named pipe", "give the path of a file")
        try:
            file = path.open("wb")
        except OSError as error:
            raise PortError("write", f"{path}: {error.strerror}",
                            "give a file that can be written") from None
        write_header(file)
        self._ring = alloc(np.dtype("u1"), RING)
        self._out = alloc(PCAP_OUT, 1)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        row = self._out[0]
        row["ring"], row["size"], row["wake"] = address_of(self._ring), RING, self._wake
        row["counters"], row["one"] = address_of(self.tx), address_of(self.one)
        self.txqs["queue"] = address_of(self._out)
        self._file = file
        self.host.loop.add_reader(self._wake, self._on_wake)

    def _on_wake(self) -> None:
        os.eventfd_read(self._wake)
        try:
            self.drain()
        except OSError as error:
            self._stop_writing(f"{self.config.write}: {error.strerror}")

    def drain(self) -> None:
        """Write what is in the ring to the file (OSError: it cannot be written)."""
        row = self._out[0]
        tail, head, now = int(row["tail"]), int(row["head"]), time.time()
        start = address_of(self._ring)
        while tail != head and self._file:
            place = tail % RING
            length = ctypes.c_int64.from_address(start + place).value
            if length == WRAP:
                tail += RING - place
                continue
            if not 0 < length <= MAX_FRAME:
                raise ValueError(f"port {self.name}: {length} is no frame length")
            write_frame(self._file, ctypes.string_at(start + place + 8, length), now)
            tail += 8 + (length + 7 & ~7)
        row["tail"] = tail
        if self._file:
            self._file.flush()

    def _stop_writing(self, reason: str) -> None:
        """Leave the plan, write what is left, and go down for good with ``reason``."""
        self.take_down(reason)
        file = self._file
        if not file:
            return
        self.host.loop.remove_reader(self._wake)
        try:
            self.drain()
            file.close()
        except OSError as error:
            self.reason = f"{self.config.write}: {error.strerror}"
            file.raw.close()  # type: ignore[attr-defined]  # what is buffered cannot be written
        os.close(self._wake)
        self._file = None

    def close(self) -> None:
        self._stop_writing("closed")

    def details(self) -> dict[str, Any]:
        return {"peer": self.config.read or self.config.write}
