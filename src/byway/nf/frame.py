# SPDX-License-Identifier: Apache-2.0
"""The frame that a network function is given, in plain Python.

    frame = Frame(data, port=3, direction="rx")
    frame.ip_ttl -= 1
    bytes(frame)

Used by plain.py, which runs functions as they stand, and as the type of ``frame`` for editors.
byway.functions has the same as kernels, and is held against this; headers.py has the headers'
names.

What changes the shape of a frame (tags, lengths, whole headers) answers True where it was done. It
is not done, and the frame stays as it is, where the frame is too short or too long for it, or where
it would tear apart what the frame's sender left to do (``Undone``).
"""

from dataclasses import replace
from typing import Literal

from byway.nf import reshape
from byway.nf.headers import Headers
from byway.nf.keys import Flow
from byway.nf.layers import ERRORS, HEAD, NOTHING, Layers, ethernet, number, packet
from byway.nf.payload import Payload
from byway.nf.sums import changed, flow_hash, total
from byway.nf.undone import DATA_VALID, NEEDS_CSUM, Undone
from byway.nf.verdicts import MOST_PORTS


class View(Headers):
    """Headers inside a frame: ``inner`` (read only) and ``quoted``. Nothing is there any more once
    something was done that may change the frame's shape: take it anew then."""

    def __init__(self, frame: "Frame", layers: Layers, settable: bool) -> None:
        self._frame, self._layers, self._settable = frame, layers, settable
        self._shape = frame.shape

    @property
    def layers(self) -> Layers:
        return self._layers if self._frame.shape == self._shape else NOTHING

    @property
    def frame_length(self) -> int:
        return self._frame.length

    def number(self, at: int, size: int) -> int:
        return self._frame.number(at, size)

    def allow_change(self) -> None:
        if not self._settable:
            raise AttributeError("what a tunnel carries can be read only; decapsulate first")

    def change(self, at: int, new: bytes) -> None:
        """In a quoted packet: its own checksums, and that of the message around it."""
        start = self.layers.l3
        odd = b"\0" * (len(self._frame.head) % 2)
        before = self._frame.head[start:] + odd
        self._frame.change_in(self.layers, at, new)
        after = self._frame.head[start:] + odd
        if total(before) != total(after):
            self._frame.add_to_sum(self._frame.layers, before, after, covers=True)

    def reshaped(self) -> None:
        """A quoted packet has no shape of its own to change."""


class Frame(Headers):
    """One frame on its way. ``undone``: what its sender left to do. ``mtu``: of its network."""

    def __init__(self, data: bytes, *, port: int = 0, network: int = 0, vni: int = 0,
                 direction: Literal["rx", "tx"] = "rx", undone: Undone = Undone(),  # noqa: B008
                 mtu: int = 1500) -> None:
        self.data = bytearray(data)
        self.undone = undone
        self.mtu = mtu
        self.shape = 0  # how often it has changed
        self.copies: list[tuple[int, bytes]] = []  # by send_copy: number of the port, bytes
        self._layers = ethernet(self.head)
        self._of = port, network, vni
        self._direction: Literal["rx", "tx"] = direction

    def __bytes__(self) -> bytes:
        return bytes(self.data)

    # ------------------------------------------------------------ where it is
    @property
    def length(self) -> int:
        """Bytes of the frame; of all segments together where it is to be cut (``is_gso``)."""
        return len(self.data)

    @property
    def port(self) -> int:
        """The number of the port that it came from."""
        return self._of[0]

    @property
    def network(self) -> int:
        """The number of its network."""
        return self._of[1]

    @property
    def vni(self) -> int:
        """The VNI of its network, 0 where it has none."""
        return self._of[2]

    @property
    def direction(self) -> Literal["rx", "tx"]:
        """"rx": it comes in from a port; "tx": it goes out to one."""
        return self._direction

    @property
    def is_gso(self) -> bool:
        """Does it still have to be cut into segments (its headers are theirs)?"""
        return self.undone.gso_type != 0

    @property
    def flow_hash(self) -> int:
        """A number that all frames of one direction of a flow share, 63 bits."""
        return flow_hash(bytes(self.data))

    @property
    def flow(self) -> Flow:
        """The flow that it is of, as a key of state."""
        if not self.is_ip:
            return Flow()
        whole = not self.is_fragment
        return Flow(self.layers.version, self.ipv4_src or self.ipv6_src,
                    self.ipv4_dst or self.ipv6_dst, self.l4_src if whole else 0,
                    self.l4_dst if whole else 0, self.ip_protocol)

    # ------------------------------------------------------------ headers in headers
    @property
    def inner(self) -> View:
        """The headers of the frame in a VXLAN packet, to be read only."""
        start = self.start("vxlan")
        found = NOTHING if start < 0 else ethernet(self.head, start + 8)
        return View(self, found, settable=False)

    @property
    def quoted(self) -> View:
        """The headers of the IP packet that an ICMP or ICMPv6 error quotes."""
        outer = self.layers
        found = NOTHING
        if (outer.has("icmp") or outer.has("icmpv6")) and self.icmp_type in ERRORS[outer.version]:
            found = packet(self.head, outer.l4 + 8, outer.version)
        return View(self, found, settable=True)

    # ------------------------------------------------------------ bytes
    def u8(self, at: int) -> int:
        """The byte at ``at``; 0 beyond the frame or its first 128 bytes."""
        return self._at(at, 1)

    def u16(self, at: int) -> int:
        """Two bytes, network byte order; as ``u8``."""
        return self._at(at, 2)

    def u32(self, at: int) -> int:
        """Four bytes, network byte order; as ``u8``."""
        return self._at(at, 4)

    def set_u8(self, at: int, value: int) -> None:
        """Set a byte of the frame's first 128; nothing beyond. No checksum is kept: see ``fix``."""
        self._set_at(at, 1, value)

    def set_u16(self, at: int, value: int) -> None:
        """Set two bytes, network byte order; as ``set_u8``."""
        self._set_at(at, 2, value)

    def set_u32(self, at: int, value: int) -> None:
        """Set four bytes, network byte order; as ``set_u8``."""
        self._set_at(at, 4, value)

    def _at(self, at: int, size: int) -> int:
        return self.number(at, size) if 0 <= at <= len(self.head) - size else 0

    def _set_at(self, at: int, size: int, value: int) -> None:
        if 0 <= at <= len(self.head) - size:
            self.data[at : at + size] = (int(value) & (1 << 8 * size) - 1).to_bytes(size, "big")
            self.unproven()
        self.reshaped()

    @property
    def payload(self) -> Payload:
        """What TCP, UDP or ICMP holds (without them what IP holds), all of it."""
        return Payload(self)

    # ------------------------------------------------------------ round and about
    def swap_eth(self) -> None:
        """Exchange the MAC addresses."""
        if self.layers.has("eth"):
            self._exchange(0, 6)

    def swap_ip(self) -> None:
        """Exchange the IP addresses."""
        found = self.layers
        if found.version == 4:
            self._exchange(found.l3 + 12, 4)
        elif found.version == 6:
            self._exchange(found.l3 + 8, 16)

    def swap_l4(self) -> None:
        """Exchange the ports of TCP or UDP."""
        if self.layers.has("ports"):
            self._exchange(self.layers.l4, 2)

    def send_copy(self, port: int) -> None:
        """Have the port with this number get a copy of the frame as it is now, as the verdict CLONE
        does; the function goes on, and may change the frame."""
        if 0 <= port < MOST_PORTS:
            self.copies.append((port, bytes(self.data)))

    def _exchange(self, at: int, size: int) -> None:
        """Two neighbours change places: no sum changes."""
        first, second = self.data[at : at + size], self.data[at + size : at + 2 * size]
        self.data[at : at + 2 * size] = second + first

    # ------------------------------------------------------------ shape
    def push_vlan(self, vlan: int) -> bool:
        """Put a VLAN tag (type 0x8100, priority 0) in front of all others."""
        return self._reshaped(reshape.push_vlan(self, vlan))

    def pop_vlan(self) -> bool:
        """Take the outer VLAN tag off."""
        return self._reshaped(reshape.pop_vlan(self))

    def decapsulate(self, n: int) -> bool:
        """Take the first ``n`` bytes off: what is left is an Ethernet frame. n <= 128."""
        return self._reshaped(reshape.decapsulate(self, n))

    def replace_l3(self, n: int, m: int, eth_type: int = 0) -> bool:
        """The ``n`` bytes behind Ethernet's header become ``m`` bytes of 0, at most 64 more, and
        the Ethernet type is ``eth_type`` (0: as it was). Write the new header then.

        Padding behind the packet is taken off. Where the n bytes are just the IP header, its
        addresses are taken out of TCP's or UDP's checksum, and those that are set afterwards come
        in: from IPv4 to IPv6 and back needs no ``fix``.
        """
        return self._reshaped(reshape.replace_l3(self, n, m, eth_type))

    def resize(self, n: int) -> bool:
        """Make the frame ``n`` bytes long, new ones being 0; the lengths in IP and UDP follow,
        checksums do not (``fix``). At least 14; longer than before up to the network's MTU and
        Ethernet's header, or 2048 where that is less."""
        return self._reshaped(reshape.resize(self, n))

    def fix(self) -> None:
        """Make lengths and checksums of IP, TCP, UDP, ICMP and ICMPv6 anew. IP's length stays where
        the frame has as many bytes (what is behind them is padding). What the frame's sender left
        to do is not left any more where it does not fit: a frame that is no IP packet has no
        checksum to complete, one that is no longer than a segment is not cut."""
        reshape.fix(self)

    # ------------------------------------------------------------ for headers.py and reshape.py
    @property
    def head(self) -> bytes:
        """What of it is looked at: its first bytes."""
        return bytes(self.data[:HEAD])

    @property
    def layers(self) -> Layers:
        return self._layers

    @property
    def frame_length(self) -> int:
        return len(self.data)

    def number(self, at: int, size: int) -> int:
        return number(self.data, at, size)

    def reshaped(self) -> None:
        self.shape += 1
        self._layers = ethernet(self.head)

    def _reshaped(self, done: bool) -> bool:
        self.reshaped()
        return done

    def unproven(self) -> None:
        """Nobody has checked its checksum any more."""
        if not self.undone.flags & NEEDS_CSUM:
            self.undone = replace(self.undone, flags=self.undone.flags & ~DATA_VALID)

    def change(self, at: int, new: bytes) -> None:
        self.change_in(self.layers, at, new)

    def change_in(self, layers: Layers, at: int, new: bytes) -> None:
        """Put other bytes at ``at``, and keep the checksums of these layers right."""
        first, end = at & ~1, (at + len(new) + 1) & ~1  # headers begin at even places
        before = bytes(self.data[first:end])
        self.data[at : at + len(new)] = new
        after = bytes(self.data[first:end])
        l3, l4 = layers.l3, layers.l4
        if layers.version == 4 and l3 <= first < l4:
            self._adjust(l3 + 10, before, after)
        addresses = l3 + 12 if layers.version == 4 else l3 + 8
        if layers.checksum and addresses <= first < addresses + (
                8 if layers.version == 4 else 32) and not layers.has("icmp"):
            self.add_to_sum(layers, before, after, covers=False)
        elif layers.checksum and first >= l4:
            self.add_to_sum(layers, before, after, covers=True)

    def add_to_sum(self, layers: Layers, before: bytes, after: bytes, covers: bool) -> None:
        """The transport's checksum when bytes have changed that it ``covers``, or that are of its
        pseudo-header."""
        place, undone = layers.checksum, self.undone
        if undone.flags & NEEDS_CSUM and undone.csum_start + undone.csum_offset == place:
            if not covers:  # the field holds the pseudo-header's sum, the rest is to be done
                held = self.data[place : place + 2] + changed(before, after)
                self.data[place : place + 2] = total(bytes(held)).to_bytes(2, "big")
            return
        if layers.has("udp"):
            if self.number(place, 2) == 0:
                return
            self._adjust(place, before, after)
            if self.number(place, 2) == 0:
                self.data[place : place + 2] = b"\xff\xff"
        else:
            self._adjust(place, before, after)

    def _adjust(self, place: int, before: bytes, after: bytes) -> None:
        held = bytes(byte ^ 0xFF for byte in self.data[place : place + 2])
        value = total(held + changed(before, after)) ^ 0xFFFF
        self.data[place : place + 2] = value.to_bytes(2, "big")
