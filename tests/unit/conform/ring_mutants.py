# SPDX-License-Identifier: Apache-2.0
"""Back ends that break one rule of rings or of frames each.

Used by mutants, which lists them all. Each is the plain back end with a few lines changed.
"""


from byway.conform.device import DeviceRing, Taken, call
from byway.conform.plain_back_end import RingState
from byway.conform.plain_rings import PlainBackEnd


class SaysWritten(PlainBackEnd):
    def finish(self, ring: RingState, device: DeviceRing, used: list[tuple[Taken, int]]) -> None:
        more = ring.index % 2
        super().finish(ring, device, [(taken, n + more) for taken, n in used])


class SaysLess(PlainBackEnd):
    def finish(self, ring: RingState, device: DeviceRing, used: list[tuple[Taken, int]]) -> None:
        super().finish(ring, device, [(taken, max(0, n - 1)) for taken, n in used])


class NeverCalls(PlainBackEnd):
    def should_call(self, device: DeviceRing) -> bool:
        return False


class AlwaysCalls(PlainBackEnd):
    def should_call(self, device: DeviceRing) -> bool:
        return True


class KeepsDisabled(PlainBackEnd):
    """A disabled transmit ring is not looked at, as some real ones do it."""

    def transmit(self, ring: RingState, device: DeviceRing) -> None:
        if ring.enabled:
            super().transmit(ring, device)


class NoNumBuffers(PlainBackEnd):
    def header(self, buffers: int) -> bytes:
        return bytes(12)


class CountsOneMore(PlainBackEnd):
    def header(self, buffers: int) -> bytes:
        return super().header(buffers + (buffers > 1))


class DirtyHeader(PlainBackEnd):
    def header(self, buffers: int) -> bytes:
        return b"\0\0\x11\x22" + super().header(buffers)[4:]


class WritesBeyond(PlainBackEnd):
    def scatter(self, device: DeviceRing, frame: bytes) -> list[tuple[Taken, int]] | None:
        chains = super().scatter(device, frame + b"beyond")
        return chains and [*chains[:-1], (chains[-1][0], chains[-1][1] - 6)]


class LeavesChecksums(PlainBackEnd):
    def out(self, frame: bytes, header: bytes) -> None:
        self.sink(frame)


class TooEarly(PlainBackEnd):
    def ready(self, ring: RingState) -> bool:
        self.status_seen = False
        return super().ready(ring)


class HeaderInFirst(PlainBackEnd):
    """Takes the first descriptor for the header, whatever its size."""

    def transmit(self, ring: RingState, device: DeviceRing) -> None:
        while (taken := device.take()) is not None:
            data = device.content(taken)
            self.out(data[taken.readable[0][1] :], data[:12])
            self.finish(ring, device, [(taken, 0)])


class NoIndirect(PlainBackEnd):
    offered = PlainBackEnd.offered

    def make_ring(self, ring: RingState, desc: int, avail: int, used: int) -> DeviceRing:
        made = super().make_ring(ring, desc, avail, used)
        made._indirect = lambda taken, table, n: taken.readable.append((table, n))  # type: ignore
        return made


class ForgetsWraps(PlainBackEnd):
    """Packed: says used by the flags of the first lap, for ever."""

    def make_ring(self, ring: RingState, desc: int, avail: int, used: int) -> DeviceRing:
        made = super().make_ring(ring, desc, avail, used)
        give_back = made.give_back

        def first_lap(chains: list[tuple[Taken, int]]) -> None:
            made.used_position |= 1 << 15
            give_back(chains)

        made.give_back = first_lap  # type: ignore[method-assign]
        return made


class Reorders(PlainBackEnd):
    held: bytes = b""

    def out(self, frame: bytes, header: bytes) -> None:
        if self.held:
            super().out(frame, header)
            super().out(self.held, header)
            self.held = b""
        else:
            self.held = frame


class UsesTwice(PlainBackEnd):
    def finish(self, ring: RingState, device: DeviceRing, used: list[tuple[Taken, int]]) -> None:
        super().finish(ring, device, [*used[:1], *used[:1], *used[2:]] if used[1:] else used)


class WantsNoKicks(PlainBackEnd):
    """Says that it polls, and sleeps."""

    def finish(self, ring: RingState, device: DeviceRing, used: list[tuple[Taken, int]]) -> None:
        super().finish(ring, device, used)
        device.want_kicks(False)


class CallsTooOften(PlainBackEnd):
    def finish(self, ring: RingState, device: DeviceRing, used: list[tuple[Taken, int]]) -> None:
        super().finish(ring, device, used)
        if used:
            call(ring.call)


class WritesReadable(PlainBackEnd):
    def transmit(self, ring: RingState, device: DeviceRing) -> None:
        take = device.take

        def spoiled() -> Taken | None:
            taken = take()
            if taken is not None:
                device.memory.write(taken.readable[0][0], b"\xEE")
            return taken

        device.take = spoiled  # type: ignore[method-assign]
        super().transmit(ring, device)
        device.take = take  # type: ignore[method-assign]


class Crashes(PlainBackEnd):
    def finish(self, ring: RingState, device: DeviceRing, used: list[tuple[Taken, int]]) -> None:
        if any(taken.bad for taken, _ in used):
            raise SystemExit("a segmentation fault, as it were")
        super().finish(ring, device, used)
