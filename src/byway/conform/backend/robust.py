# SPDX-License-Identifier: Apache-2.0
"""Checks of what a back end must survive: rings that no sane driver makes.

Used by backend.catalogue. After each the back end may have hung up or stopped the ring; it must not
have written anywhere, and a new session must pass a frame. Source: VIRTIO 1.2 says what a driver
must not do; that a device survives it is what everybody else on the host expects.
"""

import os
import struct
from collections.abc import Callable

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.session import Session, Setup
from byway.conform.backend.traffic import SETTLE, Traffic
from byway.conform.layout import INDIRECT, NEXT, WRITE
from byway.conform.memory import GUEST
from byway.conform.outcome import Check, Failed, HungUp, must, should
from byway.conform.packed_ring import PackedRing
from byway.conform.ring import Ring, SplitRing
from byway.conform.wire import QUIET
from byway.vhost.messages import HEADER, VERSION, ProtocolFeature
from byway.virtio.features import Feature, mask

Evil = Callable[[Session, Ring], None]
AWAY = 1 << 46  # a guest address that is in no region
P = ProtocolFeature


def survives(bench: Bench, evil: Evil, packed: bool = False, receive: bool = False,
             need: int = 0) -> str:
    """Do it; then a new session must pass a frame."""
    setup = Setup(packed=packed, need=need, size=64, posted=0 if receive else 16)
    traffic = Traffic(bench, setup)
    session = traffic.session
    if not receive:
        traffic.out()
    guard = session.memory.take(4096, 4096)
    session.memory.write(guard, b"\x5A" * 4096)
    ring = session.rx if receive else session.tx
    evil(session, ring)
    ring.notify()
    if receive and traffic.far is not None and traffic.peer is not None:
        for _ in range(3):
            traffic.inject(traffic.frame(300, inward=True))
    ended = session.wire.hung_up(SETTLE)
    expect(session.memory.read(guard, 4096) == b"\x5A" * 4096, "memory of nobody was written")
    session.close()
    return f"{'it hung up' if ended else 'it went on'}; " + alive(bench)


def alive(bench: Bench) -> str:
    """A new session passes a frame; Failed where none does."""
    try:
        traffic = Traffic(bench, Setup())
        traffic.out()
    except Failed as error:
        raise Failed(f"a new session does not work: {error}") from error
    return "a new session passes frames"


# ---------------------------------------------------------------- what is done to a ring


def _one(session: Session, ring: Ring, gpa: int, n: int, flags: int = 0, following: int = 0,
         ) -> None:
    """One raw descriptor, made available."""
    if isinstance(ring, PackedRing):
        ring.put(gpa, n, 0, flags)
        ring.publish()
    elif isinstance(ring, SplitRing):
        ring.describe(ring.desc, gpa, n, flags, following)
        ring.show(0)
        ring.publish()


def bad_address(session: Session, ring: Ring) -> None:
    _one(session, ring, AWAY, 100, WRITE * ring.receive)


def wrapping(session: Session, ring: Ring) -> None:
    _one(session, ring, (1 << 64) - 8, 100, WRITE * ring.receive)


def over_the_end(session: Session, ring: Ring) -> None:
    area = session.memory.areas[-1]
    _one(session, ring, area.gpa + area.size - 20, 100, WRITE * ring.receive)


def huge(session: Session, ring: Ring) -> None:
    _one(session, ring, session.memory.take(64), 0xFFFFFFFF, WRITE * ring.receive)


def zero(session: Session, ring: Ring) -> None:
    _one(session, ring, 0, 0, WRITE * ring.receive)


def wrong_direction(session: Session, ring: Ring) -> None:
    _one(session, ring, session.memory.take(200), 200, WRITE * (not ring.receive))


def loop(session: Session, ring: Ring) -> None:
    """A split chain that leads back to its head; a packed one that fills the ring."""
    gpa = session.memory.take(64)
    if isinstance(ring, SplitRing):
        ring.describe(ring.desc, gpa, 8, NEXT, 1)
        ring.describe(ring.desc + 16, gpa, 8, NEXT, 0)
        ring.show(0)
    elif isinstance(ring, PackedRing):
        for k in range(ring.size):
            ring.put(gpa, 8, 0, NEXT, first=k == 0)
    ring.publish()


def bad_next(session: Session, ring: Ring) -> None:
    _one(session, ring, session.memory.take(64), 20, NEXT, 0x7FFF)


def bad_head(session: Session, ring: Ring) -> None:
    assert isinstance(ring, SplitRing)
    ring.show(0xFFF0)
    ring.publish()


def jump(session: Session, ring: Ring) -> None:
    assert isinstance(ring, SplitRing)
    session.memory.put16(ring.avail + 2, ring.avail_idx + 20000)


def backwards(session: Session, ring: Ring) -> None:
    assert isinstance(ring, SplitRing)
    session.memory.put16(ring.avail + 2, ring.avail_idx - 1)


def _table(session: Session, ring: Ring, entries: list[tuple[int, int, int, int]], n: int = 0,
           flags: int = INDIRECT) -> None:
    """An indirect table of (address, bytes, flags, next)."""
    table = session.memory.take(16 * len(entries) + 16)
    for k, (gpa, size, what, following) in enumerate(entries):
        layout = struct.pack("<QIHH", gpa, size, 0, what) if ring.packed else \
            struct.pack("<QIHH", gpa, size, what, following)
        session.memory.write(table + 16 * k, layout)
    _one(session, ring, table, n or 16 * len(entries), flags)


def nested(session: Session, ring: Ring) -> None:
    inner = session.memory.take(32)
    gpa = session.memory.take(64)
    session.memory.write(inner, struct.pack("<QIHH", gpa, 60, 0, 0))
    _table(session, ring, [(inner, 16, INDIRECT, 0)])


def odd_table(session: Session, ring: Ring) -> None:
    _table(session, ring, [(session.memory.take(64), 60, 0, 0)], n=23)


def empty_table(session: Session, ring: Ring) -> None:
    _one(session, ring, session.memory.take(64), 0, INDIRECT)


def long_table(session: Session, ring: Ring) -> None:
    gpa = session.memory.take(64)
    _table(session, ring, [(gpa, 1, NEXT * (k < 1999), k + 1) for k in range(2000)])


def table_loop(session: Session, ring: Ring) -> None:
    gpa = session.memory.take(64)
    _table(session, ring, [(gpa, 20, NEXT, 1), (gpa, 20, NEXT, 0)])


def table_outside(session: Session, ring: Ring) -> None:
    _one(session, ring, AWAY, 64, INDIRECT)


def table_and_next(session: Session, ring: Ring) -> None:
    _table(session, ring, [(session.memory.take(64), 60, 0, 0)], flags=INDIRECT | NEXT)


def scribble(session: Session, ring: Ring) -> None:
    """Random words over everything that the ring consists of."""
    rng = session.bench.random("scribble")
    for start, n in ((ring.desc, 16 * ring.size), (ring.avail, 4), (ring.used, 4)):
        for _ in range(200):
            session.memory.write(start + rng.randrange(n), rng.randbytes(1))
        ring.notify()


# ---------------------------------------------------------------- what is done to the conversation


def truncated_memory(bench: Bench) -> str:
    """The memory's file loses its content while the rings run in it."""
    traffic = Traffic(bench, Setup())
    traffic.out()
    session = traffic.session
    session.send(traffic.frame())
    os.ftruncate(session.memory.areas[0].fd, 0)
    session.tx.notify()
    session.wire.hung_up(2 * QUIET)
    session.wire.close()
    return alive(bench)


def garbage(bench: Bench, count: int = 30) -> str:
    rng = bench.random("garbage")
    for _ in range(count):
        wire = bench.connect()
        try:
            for _ in range(5):
                data = rng.randbytes(rng.choice((4, 8, 12, 40)))
                request, size = rng.randrange(64), rng.choice((len(data), rng.getrandbits(32)))
                wire.raw(HEADER.pack(request, VERSION | rng.choice((0, 8)), size) + data)
        except (HungUp, Failed):
            wire.close()
            continue
        wire.close()
    return f"{count} conversations of random messages; " + alive(bench)


def addresses_first(bench: Bench) -> str:
    """Rings described, kicked and enabled before there is any memory."""
    traffic = Traffic(bench, Setup(), run=False)
    session = traffic.session
    session.negotiate()
    try:
        for ring in session.rings:
            session.start(ring)
            session.enable(ring)
            ring.notify()
    except Failed:
        session.wire.close()
    else:
        session.wire.hung_up(SETTLE)
    session.close()
    return alive(bench)


def memory_removed(bench: Bench) -> str:
    """The table is replaced by one in which the running rings do not lie."""
    traffic = Traffic(bench, Setup())
    traffic.out()
    session = traffic.session
    area = session.memory.areas[0]
    area.gpa, area.user = GUEST + (1 << 40), area.user + (1 << 42)
    try:
        session.share()
        session.tx.notify()
        session.wire.hung_up(SETTLE)
    except Failed:
        session.wire.close()
    session.close()
    return alive(bench)


def many_connections(bench: Bench, count: int = 50) -> str:
    for _ in range(count):
        traffic = Traffic(bench, Setup(posted=8))
        traffic.session.close()
    return f"{count} sessions begun and left; " + alive(bench)


SPLIT = (("bad-head", bad_head, "an available entry that names no descriptor"),
         ("available-jump", jump, "an available index 20000 ahead"),
         ("available-back", backwards, "an available index that goes back"),
         ("bad-next", bad_next, "a chain that leads out of the table"))
BOTH = (("bad-address", bad_address, "a descriptor that points to no memory"),
        ("address-wraps", wrapping, "a descriptor that runs over the end of addresses"),
        ("over-the-end", over_the_end, "a descriptor that runs over the end of its region"),
        ("huge-length", huge, "a descriptor of 4 GiB"),
        ("zero", zero, "a descriptor of no bytes at address 0"),
        ("loop", loop, "a chain that does not end"),
        ("wrong-direction", wrong_direction, "a descriptor of the wrong direction"),
        ("scribble", scribble, "random words over the whole ring"))
TABLES = (("nested-table", nested, "an indirect table in an indirect table"),
          ("odd-table", odd_table, "an indirect table of 23 bytes"),
          ("empty-table", empty_table, "an indirect table of no bytes"),
          ("long-table", long_table, "an indirect table of 2000 entries"),
          ("table-loop", table_loop, "an indirect table that does not end"),
          ("table-outside", table_outside, "an indirect table in no memory"),
          ("table-and-next", table_and_next, "an indirect descriptor with a next one"))
FORMATS = (("split", False, "VIRTIO 1.2, 2.7.5"), ("packed", True, "VIRTIO 1.2, 2.8.5"))
CHECKS: tuple[Check[Bench], ...] = (
    *(must(f"robust.split.{name}", "VIRTIO 1.2, 2.7.6", done, survives, evil=evil)
      for name, evil, done in SPLIT),
    *(must(f"robust.{kind}.{name}", section, done, survives, evil=evil, packed=packed)
      for kind, packed, section in FORMATS for name, evil, done in BOTH),
    *(must(f"robust.{kind}.receive-{name}", section, done + " among receive buffers", survives,
           evil=evil, packed=packed, receive=True)
      for kind, packed, section in FORMATS for name, evil, done in BOTH),
    *(must(f"robust.{kind}.{name}", section, done, survives, evil=evil, packed=packed,
           need=mask(Feature.INDIRECT_DESC))
      for kind, packed, section in FORMATS for name, evil, done in TABLES),
    must("robust.garbage", "Communication", "30 conversations of random messages", garbage),
    must("robust.rings-without-memory", "Communication", "start rings before sharing memory",
         addresses_first),
    must("robust.memory-taken-away", "SET_MEM_TABLE", "replace the memory of running rings by "
         "another", memory_removed),
    must("robust.many-sessions", "Communication", "50 sessions, each left while it runs",
         many_connections),
    # The last one: hardly anything survives it.
    should("robust.truncated-memory", "Communication", "truncate the memory's file to nothing",
           truncated_memory),
)
