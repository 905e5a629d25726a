# SPDX-License-Identifier: Apache-2.0
"""Checks of shared memory: tables, slots, what is refused, and what is let go of.

Used by backend.catalogue. Source: vhost-user, "Memory region description" and the messages.
"""

import os
from collections.abc import Sequence

from byway.conform.backend.bench import Bench, expect
from byway.conform.backend.session import Session, Setup
from byway.conform.backend.traffic import Traffic
from byway.conform.memory import GUEST, USER, Area, GuestMemory, memory
from byway.conform.outcome import Check, HungUp, must, should
from byway.conform.wire import Wire
from byway.vhost.messages import ProtocolFeature, Request
from byway.vhost.payloads import MemoryRegion, VringAddress, VringState, pack_memory_table

R, P = Request, ProtocolFeature
SLOTS = Setup(protocol_need=1 << P.CONFIGURE_MEM_SLOTS)
SMALL = 1 << 20


def passes(bench: Bench, setup: Setup) -> str:
    return Traffic(bench, setup).both_ways()


def each_region(bench: Bench, areas: int) -> str:
    traffic = Traffic(bench, Setup(areas=areas, area_size=SMALL))
    for area in range(areas):
        traffic.out(300, area=area)
    return f"a frame from each of {areas} regions was used"


def rings_in_last(bench: Bench) -> str:
    return Traffic(bench, Setup(areas=3, area_size=1 << 21, ring_area=2)).both_ways((60, 1514))


def across(bench: Bench) -> str:
    """A piece that lies in two neighbouring regions, whose mappings are not neighbours."""
    traffic = Traffic(bench, Setup(areas=3, area_size=SMALL, ring_area=2))
    session = traffic.session
    frame = traffic.frame(600)
    data = bytes(session.header) + frame
    for area, left in ((1, 5), (0, 400)):
        session.tx.add([(session.memory.across(len(data), left, area), len(data))], data)
        session.flush()
        session.tx.reap(1, bench.timeout)
        traffic.heard(frame)
    return "a frame that lies in two regions was used, twice"


def replaced(bench: Bench) -> str:
    """Another file behind the same addresses, while the rings run."""
    traffic = Traffic(bench, Setup())
    session = traffic.session
    traffic.out()
    old = session.memory.areas[0]
    new = Area(old.size, old.gpa, old.user)
    new.map[:] = old.map[:]
    session.memory.areas[0] = new
    session.share()
    session.sync()
    released = old.released(bench.timeout)
    old.close()
    expect(released, "the memory of the old table is still mapped")
    return "the old memory was let go of; " + traffic.both_ways((60, 1514))


def repeated_table(bench: Bench) -> str:
    traffic = Traffic(bench, Setup())
    for _ in range(3):
        traffic.out()
        traffic.session.share()
        traffic.session.sync()
    return "the same table three times; " + traffic.both_ways((60,))


def grown(bench: Bench) -> str:
    traffic = Traffic(bench, Setup())
    session = traffic.session
    traffic.out()
    first = session.memory.areas[0]
    session.memory.areas.append(Area(SMALL, first.gpa + first.size, first.user + 4 * first.size))
    session.share()
    session.sync()
    frame = traffic.frame(300)
    data = bytes(session.header) + frame
    gpa = first.gpa + first.size
    session.tx.add([(gpa, len(data))], data)
    session.flush()
    session.tx.reap(1, bench.timeout)
    traffic.heard(frame)
    return "a frame from a region that was added while the rings run was used"


def released_at_end(bench: Bench) -> str:
    traffic = Traffic(bench, Setup())
    traffic.out()
    area = traffic.session.memory.areas[0]
    traffic.session.wire.close()
    expect(area.released(bench.timeout), "the memory is still mapped after the connection ended")
    return "let go of with the connection"


def _table(bench: Bench, regions: Sequence[MemoryRegion], fds: Sequence[int]) -> str:
    bench.need(P.REPLY_ACK)
    return bench.negotiated().refuses(R.SET_MEM_TABLE, pack_memory_table(list(regions)), fds)


def refused_table(bench: Bench, regions: Sequence[MemoryRegion], files: int = 0) -> str:
    """A table that cannot be, over files of 1 MiB."""
    with memory(max(files or len(regions), 1), SMALL) as shared:
        return _table(bench, regions, [a.fd for a in shared.areas][: files or len(regions)])


def nine_regions(bench: Bench) -> str:
    with memory(8, SMALL) as shared:
        regions = [a.region for a in shared.areas]
        extra = MemoryRegion(GUEST + 64 * SMALL, SMALL, USER + 64 * SMALL, 0)
        return _table(bench, [*regions, extra], [a.fd for a in shared.areas])


def strange_file(bench: Bench, kind: str) -> str:
    fds = [os.eventfd(0)] if kind == "event fd" else list(os.pipe()) if kind == "pipe" else \
        [os.memfd_create("short")]
    try:
        return _table(bench, [MemoryRegion(GUEST, SMALL, USER, 0)], fds[:1])
    finally:
        for fd in fds:
            os.close(fd)


def no_fd(bench: Bench) -> str:
    return _table(bench, [MemoryRegion(GUEST, SMALL, USER, 0)], [])


def outside_ring(bench: Bench) -> str:
    """A ring that lies in no region: refused, or never served; and nothing breaks."""
    traffic = Traffic(bench, Setup(), run=False)
    session = traffic.session
    session.negotiate()
    session.share()
    wire, away = session.wire, USER + (1 << 45)
    wire.set(R.SET_VRING_NUM, VringState(1, 256).pack())
    wire.set(R.SET_VRING_BASE, VringState(1, 0).pack())
    payload = VringAddress(1, 0, away, away + 0x4000, away + 0x2000).pack()
    if wire.acked and (result := _result(wire, R.SET_VRING_ADDR, payload)):
        seen = f"refused with {result}"
    else:
        seen = "taken, and not served"
        if not wire.hung_up(0.05):
            wire.send(R.SET_VRING_CALL, b"\1" + bytes(7), [session.tx.call])
            wire.send(R.SET_VRING_KICK, b"\1" + bytes(7), [session.tx.kick])
            wire.hung_up(0.1)
    wire.close()
    bench.probe()
    return seen


def _result(wire: Wire, request: int, payload: bytes, fds: Sequence[int] = ()) -> str:
    """How a request was refused, "" where it was done."""
    try:
        result = wire.ask(request, payload, fds)
    except HungUp:
        return "a closed connection"
    return f"result {result:#x}" if result else ""


# ---------------------------------------------------------------- slots


def _slotted(bench: Bench, areas: int = 3) -> tuple[Traffic, Session]:
    """A running session whose memory was added slot by slot."""
    setup = Setup(protocol_need=1 << P.CONFIGURE_MEM_SLOTS, areas=areas, area_size=1 << 21)
    traffic = Traffic(bench, setup, run=False)
    session = traffic.session
    session.share = lambda: _add(session.wire, session.memory)  # type: ignore[method-assign]
    session.run()
    return traffic, session


def _add(wire: Wire, shared: GuestMemory) -> None:
    for area in shared.areas:
        wire.set(R.ADD_MEM_REG, area.region.pack_single(), [area.fd])


def slots_max(bench: Bench) -> str:
    bench.need(P.CONFIGURE_MEM_SLOTS)
    seen = set()
    for _ in range(2):
        wire = bench.negotiated(SLOTS.protocol_need | SLOTS.protocol)
        seen.add(wire.get_u64(R.GET_MAX_MEM_SLOTS))
        wire.close()
    expect(len(seen) == 1 and 0 not in seen, f"GET_MAX_MEM_SLOTS answered {sorted(seen)}")
    return f"{seen.pop()} slots"


def slots_add(bench: Bench) -> str:
    traffic, _ = _slotted(bench)
    for area in range(3):
        traffic.out(300, area=area)
    return "three regions added; " + traffic.both_ways((60,))


def slots_running(bench: Bench) -> str:
    traffic, session = _slotted(bench, 1)
    traffic.out()
    first = session.memory.areas[0]
    area = Area(SMALL, first.gpa + first.size, first.user + 4 * first.size)
    session.memory.areas.append(area)
    session.wire.set(R.ADD_MEM_REG, area.region.pack_single(), [area.fd])
    session.sync()
    frame = traffic.frame(300)
    data = bytes(session.header) + frame
    session.tx.add([(area.gpa, len(data))], data)
    session.flush()
    session.tx.reap(1, bench.timeout)
    traffic.heard(frame)
    return "a frame from a region added while the rings run was used"


def slots_remove(bench: Bench, with_fd: bool = False) -> str:
    traffic, session = _slotted(bench)
    traffic.out()
    area = session.memory.areas[-1]
    session.wire.set(R.REM_MEM_REG, area.region.pack_single(), [area.fd] if with_fd else [])
    session.sync()
    expect(area.released(bench.timeout), "a removed region is still mapped")
    traffic.out(300, area=0)
    return "the region was let go of, the others serve on"


def slots_remove_unknown(bench: Bench) -> str:
    bench.need(P.CONFIGURE_MEM_SLOTS, P.REPLY_ACK)
    wire = bench.negotiated(SLOTS.protocol_need | SLOTS.protocol)
    return wire.refuses(R.REM_MEM_REG, MemoryRegion(GUEST, SMALL, USER, 0).pack_single())


def slots_overlap(bench: Bench) -> str:
    bench.need(P.CONFIGURE_MEM_SLOTS, P.REPLY_ACK)
    wire = bench.negotiated(SLOTS.protocol_need | SLOTS.protocol)
    with memory(1, SMALL) as shared:
        _add(wire, shared)
        area = shared.areas[0]
        other = MemoryRegion(area.gpa + SMALL // 2, SMALL // 4, area.user + (1 << 40), 0)
        return wire.refuses(R.ADD_MEM_REG, other.pack_single(), [area.fd])


def slots_twice(bench: Bench) -> str:
    """QEMU before 8.1 adds every region once for each queue pair: refused or not, no harm."""
    traffic, session = _slotted(bench)
    seen = "taken again"
    for area in session.memory.areas:
        if refused := _result(session.wire, R.ADD_MEM_REG, area.region.pack_single(), [area.fd]):
            seen = f"refused ({refused})"
            break
    if "closed" in seen:
        bench.probe()
        return seen
    traffic.out()
    return f"{seen}; frames still pass"


def slots_too_many(bench: Bench) -> str:
    bench.need(P.CONFIGURE_MEM_SLOTS, P.REPLY_ACK)
    wire = bench.negotiated(SLOTS.protocol_need | SLOTS.protocol)
    most = wire.get_u64(R.GET_MAX_MEM_SLOTS)
    page = 4096
    with memory(1, page) as shared:
        fd = shared.areas[0].fd
        for k in range(min(most, 600)):
            region = MemoryRegion(GUEST + 2 * k * page, page, USER + 2 * k * page, 0)
            if refused := _result(wire, R.ADD_MEM_REG, region.pack_single(), [fd]):
                expect(k >= most, f"slot {k + 1} of {most} was refused ({refused})")
        region = MemoryRegion(GUEST + 2 * most * page, page, USER + 2 * most * page, 0)
        return f"slot {most + 1}: " + wire.refuses(R.ADD_MEM_REG, region.pack_single(), [fd])


TABLE, ADD, REM = "SET_MEM_TABLE", "ADD_MEM_REG", "REM_MEM_REG"
REGIONS = "Memory region description"
CHECKS: tuple[Check[Bench], ...] = (
    must("memory.one-region", TABLE, "share one region, pass frames", passes, setup=Setup()),
    must("memory.eight-regions", REGIONS, "share 8 regions, send a frame from each", each_region,
         areas=8),
    must("memory.offset", REGIONS, "share a region that begins inside its file", passes,
         setup=Setup(offset=0x10000)),
    must("memory.rings-in-last-region", REGIONS, "put the rings into the last of 3 regions",
         rings_in_last),
    must("memory.across-regions", REGIONS, "send a frame that lies in two regions", across),
    must("memory.replaced", TABLE, "replace the memory while the rings run", replaced),
    must("memory.repeated", TABLE, "send the same table again while the rings run",
         repeated_table),
    must("memory.grown", TABLE, "add a region to the table while the rings run", grown),
    must("memory.released", "Communication", "hang up, look for the mapping",
         released_at_end),
    must("memory.nine-regions", REGIONS, "send a table of 9 regions", nine_regions),
    should("memory.zero-size", REGIONS, "share a region of no bytes", refused_table,
           regions=(MemoryRegion(GUEST, 0, USER, 0),)),
    must("memory.overflow", REGIONS, "share a region that runs over the end of addresses",
         refused_table, regions=(MemoryRegion((1 << 64) - 4096, SMALL, USER, 0),)),
    should("memory.overlap", REGIONS, "share two regions at overlapping guest addresses",
           refused_table, regions=(MemoryRegion(GUEST, SMALL, USER, 0),
                                   MemoryRegion(GUEST + 4096, SMALL, USER + 2 * SMALL, 0))),
    must("memory.fewer-fds", TABLE, "share two regions with one fd", refused_table,
         regions=(MemoryRegion(GUEST, SMALL, USER, 0),
                  MemoryRegion(GUEST + SMALL, SMALL, USER + 2 * SMALL, 0)), files=1),
    must("memory.no-fd", TABLE, "share a region without an fd", no_fd),
    should("memory.short-file", REGIONS, "share more bytes than the file has", strange_file,
           kind="short file"),
    must("memory.event-fd", REGIONS, "share an event fd as memory", strange_file,
         kind="event fd"),
    must("memory.pipe", REGIONS, "share a pipe as memory", strange_file, kind="pipe"),
    must("memory.ring-outside", "SET_VRING_ADDR", "place a ring in no region", outside_ring),
    must("memory.slots-max", "GET_MAX_MEM_SLOTS", "ask for the number of slots", slots_max),
    must("memory.slots-add", ADD, "add 3 regions, send a frame from each", slots_add),
    must("memory.slots-add-running", ADD, "add a region while the rings run", slots_running),
    must("memory.slots-remove", REM, "remove a region while the rings run", slots_remove),
    should("memory.slots-remove-with-fd", REM, "remove a region, its fd attached", slots_remove,
           with_fd=True),
    must("memory.slots-remove-unknown", REM, "remove a region that was never added",
         slots_remove_unknown),
    should("memory.slots-overlap", ADD, "add a region over half of another one",
           slots_overlap),
    should("memory.slots-twice", ADD, "add all regions twice, pass a frame", slots_twice),
    must("memory.slots-too-many", ADD, "add one region more than there are slots",
         slots_too_many),
)
