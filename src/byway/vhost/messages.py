# SPDX-License-Identifier: Apache-2.0
"""The vhost-user protocol as one table: every request, and all that can be said of it alone.

Used by connection (header), payloads, back end, front end and byway.testing. Uses nothing of
Byway. Source: QEMU, docs/interop/vhost-user.rst; sections are named where they apply.

Order is no business of this file: it belongs to the back end and the front end.
"""

import struct
from enum import Enum, IntEnum
from typing import NamedTuple


class ProtocolError(Exception):
    """The peer broke the protocol; ``reason`` is a sentence for ``byway port show``."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Refused(ProtocolError):
    """A request that is not done, and that changed nothing.

    A peer that asked for an acknowledgement is told so and the conversation goes on; for any
    other peer the closed connection is the only answer.
    """


# ---------------------------------------------------------------- "Header"

HEADER = struct.Struct("=III")  # request, flags, size of the payload
VERSION = 0x1
VERSION_MASK = 0x3
REPLY = 0x4
NEED_REPLY = 0x8
FLAGS_MASK = VERSION_MASK | REPLY | NEED_REPLY
MAX_PAYLOAD = 4096
# "Memory region description": a classic table has 8 regions; one fd each. Room for more, so that
# too many are seen as such.
MAX_TABLE_REGIONS = 8
MAX_FDS = 32
NO_FD = 0x100  # SET_VRING_KICK, _CALL, _ERR: bits 0-7 ring index, bit 8 "no fd"


class ProtocolFeature(IntEnum):
    """Bits of GET/SET_PROTOCOL_FEATURES ("Protocol features")."""

    MQ = 0
    LOG_SHMFD = 1
    RARP = 2
    REPLY_ACK = 3
    NET_MTU = 4
    BACKEND_REQ = 5
    CROSS_ENDIAN = 6
    CRYPTO_SESSION = 7
    PAGEFAULT = 8
    CONFIG = 9
    BACKEND_SEND_FD = 10
    HOST_NOTIFIER = 11
    INFLIGHT_SHMFD = 12
    RESET_DEVICE = 13
    INBAND_NOTIFICATIONS = 14
    CONFIGURE_MEM_SLOTS = 15
    STATUS = 16
    XEN_MMAP = 17
    SHARED_OBJECT = 18
    DEVICE_STATE = 19
    GET_VRING_BASE_INFLIGHT = 20
    GPA_ADDRESSES = 21
    SHMEM = 22


class Request(IntEnum):
    """Front-end message types."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_LOG_BASE = 6
    SET_LOG_FD = 7
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18
    SEND_RARP = 19
    NET_SET_MTU = 20
    SET_BACKEND_REQ_FD = 21
    IOTLB_MSG = 22
    SET_VRING_ENDIAN = 23
    GET_CONFIG = 24
    SET_CONFIG = 25
    CREATE_CRYPTO_SESSION = 26
    CLOSE_CRYPTO_SESSION = 27
    POSTCOPY_ADVISE = 28
    POSTCOPY_LISTEN = 29
    POSTCOPY_END = 30
    GET_INFLIGHT_FD = 31
    SET_INFLIGHT_FD = 32
    GPU_SET_SOCKET = 33
    RESET_DEVICE = 34
    VRING_KICK = 35
    GET_MAX_MEM_SLOTS = 36
    ADD_MEM_REG = 37
    REM_MEM_REG = 38
    SET_STATUS = 39
    GET_STATUS = 40
    GET_SHARED_OBJECT = 41
    SET_DEVICE_STATE_FD = 42
    CHECK_DEVICE_STATE = 43
    GET_SHMEM_CONFIG = 44


def request_name(number: int) -> str:
    """The name of a request, or its number where it has none."""
    try:
        return Request(number).name
    except ValueError:
        return f"request {number}"


# ---------------------------------------------------------------- the table


class Payload(NamedTuple):
    """What a request carries: the fewest and the most bytes (their layouts: payloads)."""

    what: str
    fewest: int
    most: int


NONE = Payload("nothing", 0, 0)
U64 = Payload("u64", 8, 8)
STATE = Payload("vring state", 8, 8)
ADDRESS = Payload("vring address", 40, 40)
MEMORY = Payload("memory table", 8, 8 + MAX_TABLE_REGIONS * 32)
REGION = Payload("memory region", 40, 40)
LOG = Payload("log", 16, 16)  # the form that goes with LOG_SHMFD
IOTLB = Payload("IOTLB message", 32, 32)
CONFIG = Payload("config", 12, 12 + 256)
INFLIGHT = Payload("inflight", 20, 24)  # the C structure has 4 bytes more than its fields
UUID = Payload("uuid", 16, 16)
DEVICE_STATE = Payload("device state", 8, 8)
OTHER = Payload("anything", 0, MAX_PAYLOAD)  # of devices that are no network card


class Reply(Enum):
    """How a request is answered."""

    DATA = "always, with data"
    ACK = "a u64 (0: done) where the front end set NEED_REPLY and REPLY_ACK is negotiated"


class Spec(NamedTuple):
    """One request: everything about it that does not depend on the conversation."""

    number: Request
    payload: Payload = NONE
    fds: tuple[int, int] = (0, 0)  # fewest, most
    reply: Reply = Reply.ACK
    gate: ProtocolFeature | None = None  # must be negotiated
    stops: bool = False  # workers leave the rings while it takes effect
    served: bool = True  # False: known, and refused

    @property
    def name(self) -> str:
        """The request's name in the specification."""
        return self.number.name


def _refused(number: Request, payload: Payload = NONE, fds: tuple[int, int] = (0, 0),
             reply: Reply = Reply.ACK, gate: ProtocolFeature | None = None) -> Spec:
    return Spec(number, payload, fds, reply, gate, served=False)


def _table() -> dict[int, Spec]:
    R, F, DATA = Request, ProtocolFeature, Reply.DATA
    rows = [
        Spec(R.GET_FEATURES, reply=DATA),
        Spec(R.SET_FEATURES, U64, stops=True),
        Spec(R.SET_OWNER),
        Spec(R.RESET_OWNER),
        # The number of fds is the number of regions; the back end compares them.
        Spec(R.SET_MEM_TABLE, MEMORY, (0, MAX_TABLE_REGIONS), stops=True),
        Spec(R.SET_LOG_BASE, LOG, (1, 1), DATA, F.LOG_SHMFD, stops=True),
        Spec(R.SET_LOG_FD, OTHER, (0, 1)),
        Spec(R.SET_VRING_NUM, STATE, stops=True),
        Spec(R.SET_VRING_ADDR, ADDRESS, stops=True),
        Spec(R.SET_VRING_BASE, STATE, stops=True),
        Spec(R.GET_VRING_BASE, STATE, reply=DATA, stops=True),
        Spec(R.SET_VRING_KICK, U64, (0, 1), stops=True),
        Spec(R.SET_VRING_CALL, U64, (0, 1)),
        Spec(R.SET_VRING_ERR, U64, (0, 1)),
        Spec(R.GET_PROTOCOL_FEATURES, reply=DATA),
        Spec(R.SET_PROTOCOL_FEATURES, U64),
        Spec(R.GET_QUEUE_NUM, reply=DATA, gate=F.MQ),
        Spec(R.SET_VRING_ENABLE, STATE, stops=True),
        Spec(R.SEND_RARP, U64, gate=F.RARP),
        Spec(R.NET_SET_MTU, U64, gate=F.NET_MTU),
        Spec(R.SET_BACKEND_REQ_FD, fds=(1, 1), gate=F.BACKEND_REQ),
        Spec(R.IOTLB_MSG, IOTLB, gate=F.BACKEND_REQ),
        _refused(R.SET_VRING_ENDIAN, STATE, gate=F.CROSS_ENDIAN),
        Spec(R.GET_CONFIG, CONFIG, reply=DATA, gate=F.CONFIG),
        Spec(R.SET_CONFIG, CONFIG, gate=F.CONFIG),
        _refused(R.CREATE_CRYPTO_SESSION, OTHER, reply=DATA, gate=F.CRYPTO_SESSION),
        _refused(R.CLOSE_CRYPTO_SESSION, U64, gate=F.CRYPTO_SESSION),
        _refused(R.POSTCOPY_ADVISE, reply=DATA, gate=F.PAGEFAULT),
        _refused(R.POSTCOPY_LISTEN, gate=F.PAGEFAULT),
        _refused(R.POSTCOPY_END, reply=DATA, gate=F.PAGEFAULT),
        Spec(R.GET_INFLIGHT_FD, INFLIGHT, reply=DATA, gate=F.INFLIGHT_SHMFD, stops=True),
        Spec(R.SET_INFLIGHT_FD, INFLIGHT, (1, 1), gate=F.INFLIGHT_SHMFD, stops=True),
        _refused(R.GPU_SET_SOCKET, fds=(1, 1)),
        Spec(R.RESET_DEVICE, gate=F.RESET_DEVICE, stops=True),
        _refused(R.VRING_KICK, STATE, gate=F.INBAND_NOTIFICATIONS),
        Spec(R.GET_MAX_MEM_SLOTS, reply=DATA, gate=F.CONFIGURE_MEM_SLOTS),
        Spec(R.ADD_MEM_REG, REGION, (1, 1), gate=F.CONFIGURE_MEM_SLOTS, stops=True),
        # Some front ends attach the region's fd to its removal.
        Spec(R.REM_MEM_REG, REGION, (0, 1), gate=F.CONFIGURE_MEM_SLOTS, stops=True),
        Spec(R.SET_STATUS, U64, gate=F.STATUS, stops=True),
        Spec(R.GET_STATUS, reply=DATA, gate=F.STATUS),
        _refused(R.GET_SHARED_OBJECT, UUID, reply=DATA, gate=F.SHARED_OBJECT),
        _refused(R.SET_DEVICE_STATE_FD, DEVICE_STATE, (1, 1), DATA, F.DEVICE_STATE),
        _refused(R.CHECK_DEVICE_STATE, reply=DATA, gate=F.DEVICE_STATE),
        _refused(R.GET_SHMEM_CONFIG, reply=DATA, gate=F.SHMEM),
    ]
    return {row.number: row for row in rows}


SPECS = _table()
