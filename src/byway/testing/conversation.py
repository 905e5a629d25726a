# SPDX-License-Identifier: Apache-2.0
"""vhost-user conversations as lists of steps: what real front ends say.

Used by the tests of the back end and by its fuzzer (tests/hostile); uses vhost.messages and
vhost.payloads. spoiling.py spoils them. Public: a back end of your own can be tried with the same
conversations.

A step is passive: request, flags, payload, the *kinds* of files attached, and two ways to lie
(a declared size, a cut). ``SEEDS`` are complete, correct conversations in the order that known
front ends use.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

from byway.vhost.inflight import part_bytes
from byway.vhost.messages import NEED_REPLY, VERSION, Request
from byway.vhost.payloads import (
    Config,
    Inflight,
    Iotlb,
    Log,
    MemoryRegion,
    RingFile,
    VringAddress,
    VringState,
    pack_memory_table,
    pack_u64,
)
from byway.virtio.features import Feature, mask

MEMORY_SIZE = 1 << 18
GUEST, USER = 0x40000000, 0x7F0000000000
LOG_SIZE = 1 << 16  # reaches beyond the guest's memory
RING_SIZE = 256
PACKED_SIZE = 250
RING_SPACE = 0x8000
FEATURES = mask(Feature.VERSION_1, Feature.PROTOCOL_FEATURES, Feature.MRG_RXBUF,
                Feature.EVENT_IDX)
LEGACY_FEATURES = mask(Feature.MRG_RXBUF)
PACKED_FEATURES = FEATURES | mask(Feature.RING_PACKED)
LOG_ALL = mask(Feature.LOG_ALL)
MAC = bytes.fromhex("525400123456")
DRIVER_STATUS = (0, 1, 3, 11, 15)  # reset, ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK


class FileKind(Enum):
    """What may be attached to a message."""

    EVENT = "an event fd"
    MEMORY = "the guest's memory"
    OTHER_MEMORY = "another memory file of the same size"
    SHORT_MEMORY = "a memory file that is too short"
    EMPTY_MEMORY = "a memory file that was truncated to nothing"
    READ_ONLY_MEMORY = "a memory file opened for reading"
    LOG = "memory for a dirty log"
    RETURNED = "what last came with a reply"
    CHANNEL = "a socket for the back end's questions"
    PIPE = "a pipe that nobody reads"
    CLOSED_SOCKET = "a socket whose other end is closed"
    DISK = "a file on a disk"
    DIRECTORY = "a directory"
    DEVICE = "a device"


@dataclass(frozen=True)
class Step:
    """One message. ``declared``: the size its header claims (None: the truth). ``cut``: the
    connection ends after so many of its bytes (None: it goes on)."""

    request: int
    flags: int = VERSION
    payload: bytes = b""
    files: tuple[FileKind, ...] = ()
    declared: int | None = None
    cut: int | None = None


# ---------------------------------------------------------------- what real front ends say


def ring_address(index: int) -> VringAddress:
    """Where ring ``index`` of the seeds lies."""
    start = USER + RING_SPACE * index
    return VringAddress(index, 0, start, start + 0x3000, start + 0x2000, 0)


def region(part: int = 0, parts: int = 1) -> MemoryRegion:
    """The guest's memory, or one of ``parts`` equal parts of it."""
    size = MEMORY_SIZE // parts
    return MemoryRegion(GUEST + part * size, size, USER + part * size, part * size)


def _table(need_reply: int) -> Step:
    return Step(Request.SET_MEM_TABLE, VERSION | need_reply, pack_memory_table([region()]),
                (FileKind.MEMORY,))


def _u64(request: Request, value: int, flags: int = VERSION) -> Step:
    return Step(request, flags, pack_u64(value))


def _state(request: Request, index: int, num: int, flags: int = VERSION) -> Step:
    return Step(request, flags, VringState(index, num).pack())


def _event(request: Request, index: int, flags: int = VERSION) -> Step:
    return Step(request, flags, RingFile(index, True).pack(), (FileKind.EVENT,))


def _no_event(request: Request, index: int, flags: int = VERSION) -> Step:
    return Step(request, flags, RingFile(index, False).pack())


def _address(index: int, flags: int = VERSION) -> Step:
    return Step(Request.SET_VRING_ADDR, flags, ring_address(index).pack())


def _enable(on: int, flags: int = VERSION) -> list[Step]:
    return [_state(Request.SET_VRING_ENABLE, i, on, flags) for i in (0, 1)]


def _stop() -> list[Step]:
    return [_state(Request.GET_VRING_BASE, i, 0) for i in (0, 1)]


def qemu() -> list[Step]:
    """QEMU: call and err first, enables early and often, everything again when a driver starts."""
    R = Request
    connect = [Step(R.GET_FEATURES), Step(R.GET_PROTOCOL_FEATURES),
               _u64(R.SET_PROTOCOL_FEATURES, 1 << 0 | 1 << 3 | 1 << 4), Step(R.GET_QUEUE_NUM),
               Step(R.SET_OWNER), Step(R.GET_FEATURES)]
    for i in (0, 1):
        connect += [_event(R.SET_VRING_CALL, i), _event(R.SET_VRING_ERR, i)]
    connect += [_u64(R.NET_SET_MTU, 1500, VERSION | NEED_REPLY), *_enable(1), *_enable(1)]
    start = [*_enable(1), _u64(R.SET_FEATURES, FEATURES), _table(NEED_REPLY)]
    for i in (0, 1):
        start += [_state(R.SET_VRING_NUM, i, RING_SIZE), _state(R.SET_VRING_BASE, i, 0),
                  _address(i), _event(R.SET_VRING_KICK, i), _event(R.SET_VRING_CALL, i)]
    return [*connect, *start, *_stop(), *_enable(1), *start]


def virtio_user() -> list[Step]:
    """DPDK's virtio_user: calls before the features, enable last, a memory change while running."""
    R = Request
    steps = [Step(R.SET_OWNER), Step(R.GET_FEATURES), Step(R.GET_PROTOCOL_FEATURES),
             _u64(R.SET_PROTOCOL_FEATURES, 1 << 0 | 1 << 3 | 1 << 16),
             _u64(R.SET_STATUS, 0, VERSION | NEED_REPLY), _u64(R.SET_STATUS, 1),
             _u64(R.SET_STATUS, 3), _event(R.SET_VRING_CALL, 0), _event(R.SET_VRING_CALL, 1),
             _u64(R.SET_FEATURES, FEATURES), _u64(R.SET_STATUS, 11), Step(R.GET_STATUS),
             _table(NEED_REPLY)]
    for i in (0, 1):
        steps += [_state(R.SET_VRING_NUM, i, RING_SIZE), _state(R.SET_VRING_BASE, i, 0),
                  _address(i), _event(R.SET_VRING_KICK, i)]
    steps += [*_enable(1), _u64(R.SET_STATUS, 15)]
    halves = Step(R.SET_MEM_TABLE, VERSION | NEED_REPLY,
                  pack_memory_table([region(0, 2), region(1, 2)]), (FileKind.MEMORY,) * 2)
    return [*steps, *_enable(0), halves, *_enable(1)]


def cloud_hypervisor() -> list[Step]:
    """cloud-hypervisor: acknowledges wanted everywhere, address before base, call before kick."""
    R, flags = Request, VERSION | NEED_REPLY
    steps = [Step(R.SET_OWNER), Step(R.GET_FEATURES), Step(R.GET_PROTOCOL_FEATURES),
             _u64(R.SET_PROTOCOL_FEATURES, 1 << 0 | 1 << 3 | 1 << 13 | 1 << 15, flags),
             Step(R.GET_QUEUE_NUM), _u64(R.SET_FEATURES, FEATURES, flags),
             Step(R.GET_MAX_MEM_SLOTS)]
    steps += [_state(R.SET_VRING_NUM, i, RING_SIZE, flags) for i in (0, 1)]
    for i in (0, 1):
        steps += [_address(i, flags), _state(R.SET_VRING_BASE, i, 0, flags),
                  _event(R.SET_VRING_CALL, i, flags), _event(R.SET_VRING_KICK, i, flags)]
    for part in range(4):
        steps.append(Step(R.ADD_MEM_REG, flags, region(part, 4).pack_single(),
                          (FileKind.MEMORY,)))
    other = Step(R.REM_MEM_REG, flags, region(3, 4).pack_single())
    return [*steps, *_enable(1, flags), other, *_enable(0, flags), *_stop(),
            Step(R.RESET_DEVICE, flags), _u64(R.SET_FEATURES, FEATURES, flags)]


def legacy() -> list[Step]:
    """A front end without protocol features, whose rings are enabled at once, and that polls."""
    R = Request
    steps = [Step(R.GET_FEATURES), Step(R.SET_OWNER), _u64(R.SET_FEATURES, LEGACY_FEATURES),
             _table(0)]
    for i in (0, 1):
        steps += [_state(R.SET_VRING_NUM, i, RING_SIZE), _state(R.SET_VRING_BASE, i, 7),
                  _address(i), _no_event(R.SET_VRING_KICK, i), _no_event(R.SET_VRING_CALL, i)]
    return [*steps, *_stop(), Step(R.RESET_OWNER)]


def packed() -> list[Step]:
    """Packed rings of a size that is no power of two, with both positions, and stopped at them."""
    R = Request
    steps = [Step(R.GET_FEATURES), Step(R.GET_PROTOCOL_FEATURES),
             _u64(R.SET_PROTOCOL_FEATURES, 1 << 0 | 1 << 3 | 1 << 9), Step(R.SET_OWNER),
             Step(R.GET_CONFIG, payload=Config(0, 0, bytes(12)).pack()),
             Step(R.SET_CONFIG, payload=Config(0, 1, MAC).pack()),
             _u64(R.SET_FEATURES, PACKED_FEATURES), _table(NEED_REPLY)]
    for i, base in enumerate((0x80008000, 0x00078007)):
        steps += [_state(R.SET_VRING_NUM, i, PACKED_SIZE), _state(R.SET_VRING_BASE, i, base),
                  _address(i), _event(R.SET_VRING_CALL, i), _event(R.SET_VRING_KICK, i)]
    return [*steps, *_enable(1), *_enable(0), *_stop()]


def _log_used(index: int, on: bool) -> Step:
    address = replace(ring_address(index), flags=int(on), log=GUEST + RING_SPACE * index + 0x3000)
    return Step(Request.SET_VRING_ADDR, VERSION | NEED_REPLY, address.pack())


def _migration(features: int) -> list[Step]:
    """The dirty log comes and goes under running rings; it grows in between; and the guest is
    announced."""
    R = Request
    log = [Step(R.SET_LOG_BASE, VERSION, Log(size, LOG_SIZE - size).pack(), (FileKind.LOG,))
           for size in (LOG_SIZE // 2, LOG_SIZE)]
    return [log[0], Step(R.SET_LOG_FD, VERSION, b"", (FileKind.EVENT,)),
            _u64(R.SET_FEATURES, features | LOG_ALL), _log_used(0, True), _log_used(1, True),
            log[1], _log_used(0, False), _log_used(1, False), _u64(R.SET_FEATURES, features),
            Step(R.SEND_RARP, VERSION | NEED_REPLY, MAC + bytes(2))]


def migration() -> list[Step]:
    """QEMU moves a guest away, and somewhere else another one arrives."""
    start = qemu()
    start[2] = _u64(Request.SET_PROTOCOL_FEATURES, 1 << 0 | 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4)
    stop = next(i for i, step in enumerate(start) if step.request == Request.GET_VRING_BASE)
    return [*start[:stop], *_migration(FEATURES), *_stop()]


def multiqueue(pairs: int = 4) -> list[Step]:
    """QEMU with several pairs: set up pair by pair, enabled and disabled by the guest."""
    R = Request
    features = FEATURES | mask(Feature.MQ)
    steps = [Step(R.GET_FEATURES), Step(R.GET_PROTOCOL_FEATURES),
             _u64(R.SET_PROTOCOL_FEATURES, 1 << 0 | 1 << 3), Step(R.GET_QUEUE_NUM),
             Step(R.SET_OWNER), *_enable(1)]
    for pair in range(pairs):
        steps += [_u64(R.SET_FEATURES, features), *([_table(NEED_REPLY)] if pair == 0 else [])]
        for i in (2 * pair, 2 * pair + 1):
            steps += [_state(R.SET_VRING_NUM, i, 16), _state(R.SET_VRING_BASE, i, i),
                      _small_address(i), _event(R.SET_VRING_KICK, i), _event(R.SET_VRING_CALL, i)]
    for on in (1, 0, 1):
        steps += [_state(R.SET_VRING_ENABLE, i, on) for i in range(2, 2 * pairs)]
    return [*steps, *[_state(R.GET_VRING_BASE, i, 0) for i in range(2 * pairs)]]


def _small_address(index: int) -> Step:
    """A ring of 16 entries, in a page of its own."""
    start = USER + 0x1000 * index
    return Step(Request.SET_VRING_ADDR, VERSION,
                VringAddress(index, 0, start, start + 0x800, start + 0x400, 0).pack())


def tracked(features: int = PACKED_FEATURES) -> list[Step]:
    """The in-flight region is asked for, given back, and given to the one that comes later."""
    R = Request
    base = 0x8000 if features == PACKED_FEATURES else 0
    size = part_bytes(RING_SIZE, base != 0) * 2
    given = Step(R.SET_INFLIGHT_FD, VERSION | NEED_REPLY, Inflight(size, 0, 2, RING_SIZE).pack(),
                 (FileKind.RETURNED,))
    steps = [Step(R.GET_FEATURES), Step(R.GET_PROTOCOL_FEATURES),
             _u64(R.SET_PROTOCOL_FEATURES, 1 << 0 | 1 << 3 | 1 << 12 | 1 << 13),
             Step(R.SET_OWNER), _u64(R.SET_FEATURES, features), _table(NEED_REPLY),
             Step(R.GET_INFLIGHT_FD, payload=Inflight(0, 0, 2, RING_SIZE).pack()), given]
    rings = []
    for i in (0, 1):
        rings += [_state(R.SET_VRING_NUM, i, RING_SIZE), _state(R.SET_VRING_BASE, i, base),
                  _address(i), _event(R.SET_VRING_CALL, i), _event(R.SET_VRING_KICK, i)]
    return [*steps, *rings, *_enable(1), given, *_stop(), *rings, Step(R.RESET_DEVICE)]


def tracked_split() -> list[Step]:
    """The same with split rings."""
    return tracked(FEATURES)


def _translation(kind: int, start: int, size: int, permission: int = 3) -> Step:
    """Addresses behind the IOMMU are those of the front end here."""
    return Step(Request.IOTLB_MSG, VERSION | NEED_REPLY,
                Iotlb(start, size, start, permission, kind).pack())


def iommu() -> list[Step]:
    """QEMU with a guest behind an IOMMU: translations before, under and after running rings."""
    R, update, invalidate = Request, 2, 3
    steps = [Step(R.GET_FEATURES), Step(R.GET_PROTOCOL_FEATURES),
             _u64(R.SET_PROTOCOL_FEATURES, 1 << 0 | 1 << 3 | 1 << 5),
             Step(R.SET_BACKEND_REQ_FD, VERSION | NEED_REPLY, b"", (FileKind.CHANNEL,)),
             Step(R.SET_OWNER), _u64(R.SET_FEATURES, FEATURES | mask(Feature.ACCESS_PLATFORM)),
             _table(NEED_REPLY)]
    for i in (0, 1):
        steps += [_state(R.SET_VRING_NUM, i, RING_SIZE), _state(R.SET_VRING_BASE, i, 0),
                  _address(i), _event(R.SET_VRING_KICK, i), _event(R.SET_VRING_CALL, i),
                  _translation(update, USER + RING_SPACE * i, RING_SPACE)]
    return [*steps, *_enable(1), _translation(update, USER + 2 * RING_SPACE, 0x20000, 1),
            _translation(invalidate, USER + 2 * RING_SPACE, 0x1000),
            _translation(invalidate, USER + RING_SPACE, RING_SPACE),
            _translation(update, USER, MEMORY_SIZE), *_stop(), _translation(invalidate, 0, 0)]


SEEDS: tuple[Callable[[], list[Step]], ...] = (
    qemu, virtio_user, cloud_hypervisor, legacy, packed, migration, multiqueue, tracked,
    tracked_split, iommu)
