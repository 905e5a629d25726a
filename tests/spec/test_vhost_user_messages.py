# SPDX-License-Identifier: Apache-2.0
"""The vhost-user messages byte for byte, section by section of QEMU's docs/interop/vhost-user.rst.

Numbers are written out as the document has them, for a little-endian machine.
"""

import pytest

from byway.vhost.messages import (
    HEADER,
    NEED_REPLY,
    REPLY,
    SPECS,
    VERSION,
    ProtocolError,
    ProtocolFeature,
    Reply,
    Request,
)
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
    unpack_memory_table,
    unpack_u64,
)


def words(*values: tuple[int, int]) -> bytes:
    """(value, bytes) in order, little endian."""
    return b"".join(value.to_bytes(size, "little") for value, size in values)


def test_header() -> None:
    """"Header": request, flags, size; flags: bits 0-1 version, 2 reply, 3 need_reply."""
    assert HEADER.size == 12
    assert HEADER.pack(5, VERSION | NEED_REPLY, 40) == bytes.fromhex("05000000 09000000 28000000")
    assert (VERSION, REPLY, NEED_REPLY) == (1, 1 << 2, 1 << 3)
    assert VERSION | REPLY == 5


def test_single_integer() -> None:
    """"A single 64-bit integer"."""
    assert pack_u64(0x1122334455667788) == bytes.fromhex("8877665544332211")
    assert unpack_u64(bytes.fromhex("8877665544332211")) == 0x1122334455667788


def test_vring_state() -> None:
    """"A vring state description": index, num; 32 bits each."""
    raw = words((3, 4), (256, 4))
    assert VringState(3, 256).pack() == raw
    assert VringState.unpack(raw) == VringState(3, 256)


def test_vring_address() -> None:
    """"A vring address description": index, flags, descriptor, used, available, log."""
    raw = words((1, 4), (1, 4), (0xD, 8), (0xE, 8), (0xA, 8), (0xC, 8))
    address = VringAddress(index=1, flags=1, desc=0xD, used=0xE, avail=0xA, log=0xC)
    assert len(raw) == 40
    assert address.pack() == raw
    assert VringAddress.unpack(raw) == address


def test_memory_region() -> None:
    """"Memory region description": guest address, size, user address, mmap offset; 64 bits each."""
    raw = words((0x100, 8), (0x200, 8), (0x300, 8), (0x400, 8))
    region = MemoryRegion(gpa=0x100, size=0x200, user=0x300, offset=0x400)
    assert region.pack() == raw
    assert MemoryRegion.unpack(raw) == region


def test_single_memory_region() -> None:
    """"Single memory region description": padding of 64 bits, then the region."""
    raw = words((0, 8), (1, 8), (2, 8), (3, 8), (4, 8))
    region = MemoryRegion(1, 2, 3, 4)
    assert region.pack_single() == raw
    assert MemoryRegion.unpack_single(raw) == region


def test_memory_table() -> None:
    """"Multiple Memory regions description": number, padding of 32 bits, regions."""
    regions = [MemoryRegion(1, 2, 3, 4), MemoryRegion(5, 6, 7, 8)]
    raw = words((2, 4), (0, 4), *[(n, 8) for n in range(1, 9)])
    assert pack_memory_table(regions) == raw
    assert unpack_memory_table(raw) == regions
    full = raw.ljust(8 + 8 * 32, b"\0")
    assert unpack_memory_table(full) == regions


def test_log() -> None:
    """"Log description": log size, log offset."""
    raw = words((0x1000, 8), (0x20, 8))
    assert Log(0x1000, 0x20).pack() == raw
    assert Log.unpack(raw) == Log(0x1000, 0x20)


def test_iotlb() -> None:
    """"An IOTLB message": iova, size, user address, permission, type (in its C structure)."""
    raw = words((1, 8), (2, 8), (3, 8), (3, 1), (2, 1), (0, 6))
    assert Iotlb(1, 2, 3, 3, 2).pack() == raw
    assert Iotlb.unpack(raw) == Iotlb(1, 2, 3, 3, 2)


def test_inflight() -> None:
    """"Inflight description": mmap size, mmap offset, num queues, queue size (padded to 24)."""
    raw = words((0x1000, 8), (0, 8), (2, 2), (256, 2), (0, 4))
    assert Inflight(0x1000, 0, 2, 256).pack() == raw
    assert Inflight.unpack(raw) == Inflight(0x1000, 0, 2, 256)


def test_inflight_without_its_padding() -> None:
    """The document's 20 bytes, and the C structure's 24 that front ends send."""
    raw = words((0x1000, 8), (0x40, 8), (4, 2), (1024, 2))
    means = Inflight(0x1000, 0x40, 4, 1024)
    assert Inflight.unpack_either(raw) == Inflight.unpack_either(raw + bytes(4)) == means
    for size in (0, 19, 21, 23, 25):
        with pytest.raises(ProtocolError, match=f"an inflight description of {size} bytes"):
            Inflight.unpack_either(bytes(size))


def test_config() -> None:
    """"Virtio device config space": offset, size, flags; 32 bits each; then ``size`` bytes."""
    raw = words((6, 4), (4, 4), (1, 4), (0x44332211, 4))
    assert Config(6, 1, bytes.fromhex("11223344")).pack() == raw
    assert Config.unpack(raw) == Config(6, 1, bytes.fromhex("11223344"))
    for wrong in (raw + b"1", raw[:-1], raw[:11]):
        with pytest.raises(ProtocolError, match="a piece of config space"):
            Config.unpack(wrong)


@pytest.mark.parametrize(("raw", "means"), [
    (0x000, RingFile(0, True)), (0x101, RingFile(1, False)), (0x1FF, RingFile(255, False))])
def test_ring_file(raw: int, means: RingFile) -> None:
    """VHOST_USER_SET_VRING_KICK: bits 0-7 vring index, bit 8 invalid FD flag."""
    assert means.pack() == words((raw, 8))
    assert RingFile.unpack(words((raw, 8))) == means


def test_request_numbers() -> None:
    """"Front-end message types": the ids are one run from 1, and every one is in the table."""
    assert [int(r) for r in Request] == list(range(1, 45))
    assert list(SPECS) == list(range(1, 45))
    assert all(SPECS[n].number == n for n in SPECS)
    named = {"GET_FEATURES": 1, "SET_MEM_TABLE": 5, "SET_VRING_ADDR": 9, "GET_VRING_BASE": 11,
             "SET_VRING_KICK": 12, "GET_PROTOCOL_FEATURES": 15, "SET_VRING_ENABLE": 18,
             "NET_SET_MTU": 20, "SET_CONFIG": 25, "GET_INFLIGHT_FD": 31, "RESET_DEVICE": 34,
             "GET_MAX_MEM_SLOTS": 36, "ADD_MEM_REG": 37, "REM_MEM_REG": 38, "SET_STATUS": 39,
             "GET_STATUS": 40, "GET_SHMEM_CONFIG": 44}
    assert {name: int(Request[name]) for name in named} == named


def test_protocol_feature_bits() -> None:
    """"Protocol features": the bits."""
    assert [int(f) for f in ProtocolFeature] == list(range(23))
    named = {"MQ": 0, "LOG_SHMFD": 1, "RARP": 2, "REPLY_ACK": 3, "NET_MTU": 4, "BACKEND_REQ": 5,
             "PAGEFAULT": 8, "CONFIG": 9, "INFLIGHT_SHMFD": 12, "RESET_DEVICE": 13,
             "CONFIGURE_MEM_SLOTS": 15, "STATUS": 16}
    assert {name: int(ProtocolFeature[name]) for name in named} == named


def test_replies() -> None:
    """"Communication": the requests that have a reply of their own, of those served."""
    with_data = {s.name for s in SPECS.values() if s.served and s.reply is Reply.DATA}
    assert with_data == {"GET_FEATURES", "GET_PROTOCOL_FEATURES", "GET_VRING_BASE",
                         "GET_QUEUE_NUM", "GET_MAX_MEM_SLOTS", "GET_STATUS", "SET_LOG_BASE",
                         "GET_CONFIG", "GET_INFLIGHT_FD"}


def test_files() -> None:
    """"Communication": the requests that carry file descriptors, of those served."""
    with_files = {s.name: s.fds for s in SPECS.values() if s.served and s.fds != (0, 0)}
    assert with_files == {"SET_MEM_TABLE": (0, 8), "SET_LOG_BASE": (1, 1),
                          "SET_LOG_FD": (0, 1),
                          "SET_VRING_KICK": (0, 1), "SET_VRING_CALL": (0, 1),
                          "SET_VRING_ERR": (0, 1), "ADD_MEM_REG": (1, 1), "REM_MEM_REG": (0, 1),
                          "SET_INFLIGHT_FD": (1, 1), "SET_BACKEND_REQ_FD": (1, 1)}


def test_gates() -> None:
    """The protocol feature that a request needs, of those served."""
    F = ProtocolFeature
    gates = {s.name: s.gate for s in SPECS.values() if s.served and s.gate is not None}
    assert gates == {"GET_QUEUE_NUM": F.MQ, "NET_SET_MTU": F.NET_MTU,
                     "SET_LOG_BASE": F.LOG_SHMFD, "SEND_RARP": F.RARP,
                     "GET_INFLIGHT_FD": F.INFLIGHT_SHMFD, "SET_INFLIGHT_FD": F.INFLIGHT_SHMFD,
                     "SET_BACKEND_REQ_FD": F.BACKEND_REQ, "IOTLB_MSG": F.BACKEND_REQ,
                     "GET_CONFIG": F.CONFIG, "SET_CONFIG": F.CONFIG,
                     "RESET_DEVICE": F.RESET_DEVICE, "GET_MAX_MEM_SLOTS": F.CONFIGURE_MEM_SLOTS,
                     "ADD_MEM_REG": F.CONFIGURE_MEM_SLOTS, "REM_MEM_REG": F.CONFIGURE_MEM_SLOTS,
                     "SET_STATUS": F.STATUS, "GET_STATUS": F.STATUS}
