# SPDX-License-Identifier: Apache-2.0
"""Checks of what live migration and restarts need: the dirty log, and the in-flight region.

Used by backend.catalogue. Sources: vhost-user, "Migration" and "Inflight I/O tracking".
"""

import mmap
import os
import time
from collections.abc import Iterable

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.session import Setup
from byway.conform.backend.traffic import Traffic
from byway.conform.memory import AREA, GUEST
from byway.conform.outcome import Check, must, should
from byway.conform.ring import PAUSE, Used
from byway.conform.wire import u64
from byway.vhost.messages import ProtocolFeature, Request
from byway.vhost.payloads import Inflight, Log, VringAddress
from byway.virtio.features import Feature, mask

R, P, F = Request, ProtocolFeature, Feature
PAGE = 4096
LOGGED = Setup(need=mask(F.LOG_ALL), protocol_need=1 << P.LOG_SHMFD)


class DirtyLog:
    """A log of our own, given to the back end."""

    def __init__(self, traffic: Traffic, size: int = (GUEST + AREA) // PAGE // 8 + 8) -> None:
        self._traffic, self.size = traffic, size
        self.fd = os.memfd_create("dirty log", os.MFD_CLOEXEC)
        os.ftruncate(self.fd, size)
        self.map = mmap.mmap(self.fd, size)
        traffic.bench.keep(self)

    def share(self) -> None:
        """SET_LOG_BASE, whose reply has no payload."""
        wire = self._traffic.session.wire
        wire.send(R.SET_LOG_BASE, Log(self.size, 0).pack(), [self.fd])
        wire.reply(R.SET_LOG_BASE, None)

    def switch(self, on: bool) -> None:
        """LOG_ALL on or off, and the logging of used rings with it."""
        session = self._traffic.session
        session.wire.set(R.SET_FEATURES, u64(
            session.features & ~mask(F.LOG_ALL) | mask(F.LOG_ALL) * on))
        for ring in session.rings:
            user = session.memory.user
            session.wire.set(R.SET_VRING_ADDR, VringAddress(
                ring.index, int(on), user(ring.desc), user(ring.used), user(ring.avail),
                ring.used).pack())
        session.sync()

    def clear(self) -> None:
        """Forget what was logged."""
        self.map[:] = bytes(self.size)

    def dirty(self, gpa: int) -> bool:
        """Whether the page of a guest address is marked."""
        page = gpa // PAGE
        return bool(self.map[page // 8] >> page % 8 & 1)

    def missing(self, ranges: Iterable[tuple[int, int]]) -> list[int]:
        """The pages of these (guest address, bytes) that are not marked in time: a device may do
        so after a driver has seen what it wrote."""
        end = time.monotonic() + self._traffic.bench.timeout
        left = [gpa for start, n in ranges
                for gpa in range(start // PAGE * PAGE, start + n, PAGE)]
        while (left := [gpa for gpa in left if not self.dirty(gpa)]) and time.monotonic() < end:
            time.sleep(PAUSE)
        return left

    def close(self) -> None:
        """Let go of it."""
        self.map.close()
        os.close(self.fd)


def written(used: Iterable[Used]) -> list[tuple[int, int]]:
    """Where the device wrote: the parts of the chains' pieces up to the used length."""
    places = []
    for entry in used:
        left = entry.length
        for gpa, n in entry.chain.pieces:
            if left > 0:
                places.append((gpa, min(n, left)))
            left -= n
    return places


def logged(bench: Bench, packed: bool = False) -> tuple[Traffic, DirtyLog]:
    """A running session whose log is shared and off."""
    setup = Setup(need=LOGGED.need, protocol_need=LOGGED.protocol_need, packed=packed)
    traffic = Traffic(bench, setup, run=False)
    session = traffic.session
    wanted = session.features
    session.features &= ~mask(F.LOG_ALL)
    session.run()
    session.features = wanted
    log = DirtyLog(traffic)
    log.share()
    return traffic, log


def log_base(bench: Bench) -> str:
    _, log = logged(bench)
    log.share()
    return "answered, twice"


def log_receive(bench: Bench, packed: bool = False) -> str:
    traffic, log = logged(bench, packed)
    traffic.warm()
    log.switch(True)
    for size in (60, 1514, 1514, 1514):
        frame = traffic.into(size)
        missing = log.missing(written(frame.used))
        expect(not missing, f"the device wrote to the page at {(missing or [0])[0]:#x}, which is "
               "not marked")
    return "all pages of received frames are marked"


def log_merged(bench: Bench) -> str:
    setup = Setup(need=LOGGED.need | mask(F.MRG_RXBUF), protocol_need=LOGGED.protocol_need,
                  posted=0)
    traffic = Traffic(bench, setup, run=False)
    session = traffic.session
    session.run()
    for _ in range(100):  # each buffer in a page of its own
        session.rx.add([(session.memory.take(300, PAGE), 300)])
    session.rx.publish()
    session.rx.notify()
    log = DirtyLog(traffic)
    log.share()
    log.switch(True)
    traffic.warm()
    frame = traffic.into(1514)
    missing = log.missing(written(frame.used))
    expect(not missing, f"{len(missing)} of {len(frame.used)} pages that were written are not "
           "marked")
    return f"{len(frame.used)} buffers, all their pages marked"


def log_used_ring(bench: Bench) -> str:
    traffic, log = logged(bench)
    log.switch(True)
    ring = traffic.session.tx
    for _ in range(3):
        log.clear()
        at = ring.used + 4 + 8 * (ring.position % ring.size)
        traffic.push()
        missing = log.missing([(at, 8), (ring.used + 2, 2)])
        expect(not missing, "a used entry or the used index was written to a page that is not "
               "marked")
    return "used entries and index are marked"


def log_descriptors(bench: Bench) -> str:
    """Packed: the device writes used descriptors into the descriptor ring."""
    traffic, log = logged(bench, packed=True)
    log.switch(True)
    ring = traffic.session.tx
    at = ring.desc + 16 * (ring.position & 0x7FFF)
    traffic.push()
    expect(not log.missing([(at, 16)]), "a used descriptor was written to a page that is not "
           "marked")
    return "used descriptors are marked"


def log_nothing(bench: Bench) -> str:
    traffic, log = logged(bench)
    log.clear()
    traffic.both_ways((60, 1514))
    expect(not any(log.map[:]), "pages were marked while LOG_ALL was off")
    return "nothing was marked while LOG_ALL was off"


def log_off_again(bench: Bench) -> str:
    traffic, log = logged(bench)
    log.switch(True)
    traffic.out()
    log.switch(False)
    time.sleep(0.01)
    log.clear()
    traffic.both_ways((60, 1514))
    expect(not any(log.map[:]), "pages were marked after LOG_ALL was switched off")
    return "nothing was marked after it was switched off; frames passed all the time"


def log_not_sent(bench: Bench) -> str:
    """What is only read need not be copied again."""
    traffic, log = logged(bench)
    session = traffic.session
    log.switch(True)
    log.clear()
    gpa = session.memory.take(PAGE, PAGE)
    frame = bytes(session.header) + traffic.frame(100)
    session.tx.add([(gpa, len(frame))], frame)
    session.flush()
    session.tx.reap(1, bench.timeout)
    expect(not log.dirty(gpa), "the page of a frame that was sent is marked")
    return "not marked"


def log_too_small(bench: Bench) -> str:
    """A log that has no bit for what is written must not be written behind its end."""
    traffic, _ = logged(bench)
    log = DirtyLog(traffic, PAGE)
    wire = traffic.session.wire
    wire.send(R.SET_LOG_BASE, Log(64, 0).pack(), [log.fd])
    if not wire.hung_up(0.1):
        log.switch(True)
        traffic.push()
        expect(not any(log.map[64:]), "the log was written behind its end")
    wire.close()
    bench.probe()
    return "nothing was written behind its end"


# ---------------------------------------------------------------- in-flight

TRACKED = Setup(protocol_need=1 << P.INFLIGHT_SHMFD)


def _region(traffic: Traffic) -> tuple[Inflight, int]:
    wire, size = traffic.session.wire, traffic.session.setup.size
    wire.send(R.GET_INFLIGHT_FD, Inflight(0, 0, 2, size).pack())
    message = wire.reply(R.GET_INFLIGHT_FD, 24, fds=True)
    fd = message.take_fd()
    extra = len(message.fds)
    message.close()
    expect(fd >= 0 and not extra, "GET_INFLIGHT_FD was answered without exactly one fd")
    return Inflight.unpack(message.payload), fd


def inflight_get(bench: Bench) -> str:
    traffic = Traffic(bench, TRACKED, run=False)
    traffic.session.negotiate()
    region, fd = _region(traffic)
    try:
        least = 2 * (16 + 16 * traffic.session.setup.size)
        have = os.fstat(fd).st_size
        expect(region.size >= least, f"{region.size} bytes for 2 rings; {least} are needed")
        expect(have >= region.size + region.offset, f"the file has {have} bytes, the region "
               f"{region.size} from {region.offset}")
        content = os.pread(fd, region.size, region.offset)
        expect(not any(content), "a new region is not all zero")
    finally:
        os.close(fd)
    return f"{region.size} bytes, all zero"


def inflight_set(bench: Bench, packed: bool = False) -> str:
    setup = Setup(protocol_need=1 << P.INFLIGHT_SHMFD, packed=packed)
    traffic = Traffic(bench, setup, run=False)
    session = traffic.session
    session.negotiate()
    region, fd = _region(traffic)
    try:
        session.wire.set(R.SET_INFLIGHT_FD, region.pack(), [fd])
    finally:
        os.close(fd)
    session.negotiate = lambda: None  # type: ignore[method-assign]
    session.run()
    return "tracked; " + traffic.both_ways((60,))


def inflight_bad(bench: Bench) -> str:
    """A region whose file is shorter than it claims."""
    bench.need(P.INFLIGHT_SHMFD, P.REPLY_ACK)
    wire = bench.negotiated(TRACKED.protocol_need | TRACKED.protocol)
    fd = os.memfd_create("inflight")
    try:
        os.ftruncate(fd, 64)
        return wire.refuses(R.SET_INFLIGHT_FD, Inflight(1 << 20, 0, 2, 256).pack(), [fd])
    finally:
        os.close(fd)


def inflight_restart(bench: Bench) -> str:
    """The connection ends and comes back with the same rings and region: nothing is lost."""
    traffic = Traffic(bench, TRACKED, run=False)
    session = traffic.session
    session.negotiate()
    region, fd = _region(traffic)
    bench.keep(_Fd(fd))
    session.wire.set(R.SET_INFLIGHT_FD, region.pack(), [fd])
    negotiate, session.negotiate = session.negotiate, lambda: None  # type: ignore[method-assign]
    session.run()
    traffic.out()
    session.wire.close()
    for _ in range(3):  # made available while nobody is there
        session.send(traffic.frame())
    session.tx.publish()
    session.wire = bench.connect()
    negotiate()
    session.wire.set(R.SET_INFLIGHT_FD, region.pack(), [fd])
    session.share()
    for ring in session.rings:
        session.start(ring)
        session.enable(ring)
        ring.notify()
    session.tx.reap(3, bench.timeout)
    return "3 chains made available meanwhile were used once each; " + traffic.both_ways((60,))


class _Fd:
    """An fd that a bench closes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)


def reconnected(bench: Bench) -> str:
    """Without an in-flight region: a driver goes on from its used index over a reconnect."""
    traffic = Traffic(bench, Setup())
    session = traffic.session
    traffic.out()
    session.wire.close()
    session.send(traffic.frame())
    session.tx.publish()
    session.wire = bench.connect()
    session.negotiate()
    session.share()
    for ring in session.rings:
        session.start(ring)
        session.enable(ring)
        ring.notify()
    session.tx.reap(1, bench.timeout)
    return "a chain made available meanwhile was used; " + traffic.both_ways((60,))


MIGRATION, INFLIGHT = "Migration", "Inflight I/O tracking"
CHECKS: tuple[Check[Bench], ...] = (
    must("log.base", MIGRATION, "share a dirty log, and another one", log_base),
    must("log.split.receive", MIGRATION, "receive while logging, look at the pages", log_receive),
    must("log.packed.receive", MIGRATION, "receive while logging, look at the pages", log_receive,
         packed=True),
    must("log.merged", MIGRATION, "receive a frame over several pages", log_merged),
    must("log.split.used-ring", MIGRATION, "send while logging, look at the used ring",
         log_used_ring),
    must("log.packed.descriptors", MIGRATION, "send while logging, look at the descriptors",
         log_descriptors),
    must("log.off", MIGRATION, "pass frames with LOG_ALL off", log_nothing),
    must("log.off-again", MIGRATION, "switch logging on and off while the rings run",
         log_off_again),
    should("log.not-for-sending", MIGRATION, "send while logging, look at what was sent",
           log_not_sent),
    must("log.too-small", MIGRATION, "share a log that is too small", log_too_small),
    must("inflight.get", INFLIGHT, "ask for an in-flight region", inflight_get),
    must("inflight.split.set", INFLIGHT, "give it back, pass frames", inflight_set),
    must("inflight.packed.set", INFLIGHT, "give it back, pass frames", inflight_set, packed=True),
    must("inflight.bad-size", INFLIGHT, "share a region that is longer than its file",
         inflight_bad),
    must("inflight.reconnect", INFLIGHT, "reconnect with the same rings and region",
         inflight_restart),
    must("session.reconnect", "Communication", "reconnect with the same rings", reconnected),
)
