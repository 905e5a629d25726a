# SPDX-License-Identifier: Apache-2.0
"""``byway.tap``: copies of chosen frames, both directions, to a pcapng file or to another port.

A built-in network function, written on the author's page (byway.nf) alone.

In a port's chain it sees what the port sends ("in", as seen by the switch) and what it gets
("out"). What is chosen goes on as if nobody looked. Copies in the file have at most SNAPLEN bytes;
those to a port are whole. A copy that the listener, a process of its own, is too slow for is lost
and counted; none that goes to a port is.
"""

from typing import Annotated, Any, Literal

from byway import nf
from byway.functions.export.pcapng import Writer

SNAPLEN = 2048


@nf.function
class Tap:
    """Copy the frames of an address, a protocol, a port number, or all."""

    file: nf.Text = nf.Text("")  # pcapng; empty: none
    to: nf.Port = nf.Port("")  # a port that gets copies; empty: none
    address: nf.Prefix4 = nf.Prefix4("0.0.0.0/0")  # source or destination
    address6: nf.Prefix6 = nf.Prefix6("::/0")
    family: Literal["any", "ipv4", "ipv6"] = "any"
    protocol: Annotated[int, nf.Range(0, 255)] = 0  # IP's number; 0: any
    number: Annotated[int, nf.Range(0, 65535)] = 0  # source or destination port; 0: any
    to_file: bool = True

    copied = nf.Counter()
    frames = nf.Event(port="u16", out="u8", length="u32", frame="bytes:2048", capacity=1024)

    def rx(self, frame):
        return self.copy(frame, 0)

    def tx(self, frame):
        return self.copy(frame, 1)

    def copy(self, frame, out):
        """Copy the frame, if it is chosen."""
        if not self.chosen(frame):
            return nf.PASS
        self.copied.add()
        if self.to_file:
            self.frames.emit(port=frame.port, out=out, length=frame.length, frame=frame)
        if self.to >= 0:
            return nf.CLONE(self.to)
        return nf.PASS

    def chosen(self, frame):
        """Is it one of those that are wanted?"""
        if self.family == "ipv4" and not frame.is_ipv4:
            return False
        if self.family == "ipv6" and not frame.is_ipv6:
            return False
        if frame.is_ipv4:
            if frame.ipv4_src not in self.address and frame.ipv4_dst not in self.address:
                return False
        if frame.is_ipv6:
            if frame.ipv6_src not in self.address6 and frame.ipv6_dst not in self.address6:
                return False
        if self.protocol != 0 and not (frame.is_ip and frame.ip_protocol == self.protocol):
            return False
        if self.number != 0:
            if not (frame.is_tcp or frame.is_udp):
                return False
            return frame.l4_src == self.number or frame.l4_dst == self.number
        return True

    @staticmethod
    async def listen(session: Any) -> None:
        """Write the file."""
        path = str(session.parameters["file"])
        if not path:
            return
        with open(path, "ab", buffering=0) as file:  # sections may follow one another
            writer = Writer(file, snaplen=SNAPLEN)
            async for event in session.events("frames"):
                writer.frame(session.ports.get(int(event["port"]), str(event["port"])),
                             bytes.fromhex(event["frame"]),
                             round(session.since_1970(event["time"]) * 1e9),
                             length=int(event["length"]),
                             direction="out" if event["out"] else "in")
