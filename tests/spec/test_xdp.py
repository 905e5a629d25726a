# SPDX-License-Identifier: Apache-2.0
"""AF_XDP and bpf(2) byte for byte: layouts of include/uapi/linux/{if_xdp,bpf}.h, the program's
instructions as RFC 9669 encodes them, and frames through hand-written rings."""

import struct

import pytest

from byway.ports import af_xdp_kernels, bpf, ethtool, far_end, xdp_program, xsk
from byway.testing.plain_xsk import PlainXsk


def test_the_program() -> None:
    """RFC 9669, 3: opcode, dst and src (4 bits each), offset i16, imm i32; little-endian."""
    assert xdp_program.redirect_program(0x11223344) == bytes.fromhex(
        "61 12 1000 00000000"  # r2 = *(u32 *)(r1 + 16): xdp_md.rx_queue_index
        "18 11 0000 44332211"  # r1 = map by its file (lddw, src 1 = BPF_PSEUDO_MAP_FD)
        "00 00 0000 00000000"  # its second slot
        "b7 03 0000 02000000"  # r3 = XDP_PASS
        "85 00 0000 33000000"  # call bpf_redirect_map (51)
        "95 00 0000 00000000")  # exit


def test_numbers() -> None:
    assert (bpf.XSKMAP, bpf.PROG_XDP, bpf.ATTACH_XDP, bpf.HAS_FRAGS) == (17, 6, 37, 0x20)
    assert (bpf.SKB_MODE, bpf.DRV_MODE) == (2, 4)
    assert (xsk.AF_XDP, xsk.SOL_XDP) == (44, 283)
    assert (xsk._COPY, xsk._ZERO_COPY, xsk._USE_NEED_WAKEUP, xsk._USE_SG) == (2, 4, 8, 16)
    assert xsk._PAGE_OFFSETS == {2: 0, 3: 0x80000000, 5: 0x100000000, 6: 0x180000000}
    assert (af_xdp_kernels.DESCRIPTOR, af_xdp_kernels.PLACE) == (16, 8)
    assert (af_xdp_kernels.CONTINUED, af_xdp_kernels.NEED_WAKEUP) == (1 << 32, 1)
    assert ethtool._SIOCETHTOOL == 0x8946
    assert (far_end._IFLA_LINK, far_end._IFLA_LINK_NETNSID) == (5, 37)


@pytest.mark.parametrize(("layout", "size", "offsets"), [
    (xsk._UMEM, 32, (0, 8, 16, 20, 24, 28)),  # struct xdp_umem_reg, with tx_metadata_len
    (xsk._ADDRESS, 16, (0, 2, 4, 8, 12)),  # struct sockaddr_xdp
    (xsk._OFFSETS, 128, tuple(range(0, 128, 8))),  # struct xdp_mmap_offsets
    (bpf._MAP_ATTR, 20, (0, 4, 8, 12, 16)),
    (bpf._UPDATE_ATTR, 32, (0, 8, 16, 24)),
    (bpf._PROG_ATTR, 72, (0, 4, 8, 16, 24, 28, 32, 40, 44, 48, 64, 68)),
    (bpf._LINK_ATTR, 16, (0, 4, 8, 12)),
    (bpf._PROG_INFO, 80, (4, 48, 64)),  # struct bpf_prog_info: id, created_by_uid, name
    (ethtool._IFREQ, 40, (0, 16)),
    (ethtool._MREQ, 16, (0, 4, 6, 8)),  # struct packet_mreq
    (ethtool._BLOCK, 16, (0, 4, 8, 12)),
    (ethtool._CHANNELS, 36, tuple(range(0, 36, 4))),
])
def test_layouts(layout: struct.Struct, size: int, offsets: tuple[int, ...]) -> None:
    """Each field is alone in its place: a one there is seen at its offset."""
    assert layout.size == size
    for number, offset in enumerate(offsets):
        data = bytearray(layout.size)
        data[offset] = 1
        values = layout.unpack(bytes(data))
        assert values[number] == 1 or bytes(values[number]).startswith(b"\1\0")
        assert sum(bool(v.strip(b"\0") if isinstance(v, bytes) else v) for v in values) == 1


def test_a_frame_comes_in() -> None:
    """struct xdp_desc: addr u64 @0, len u32 @8, options u32 @12. The chunk goes back to FILL
    without its headroom."""
    with PlainXsk() as ring:
        area = ring.area.view
        area[2048 + 300 : 2048 + 360] = bytearray(range(60))
        view = ring.rx.memory.view[-64 * 16 :]
        view[:16] = bytearray(struct.pack("<QII", 2048 + 300, 60, 0))
        ring.rx.word(ring.rx.ring.producer).value = 1
        assert ring.receive() == [bytes(range(60))]
        assert ring.rx.word(ring.rx.ring.consumer).value == 1
        assert ring.fill.word(ring.fill.ring.producer).value == 65
        assert bytes(ring.fill.memory.view[-64 * 8 :][:8]) == struct.pack("<Q", 2048)


def test_frames_go_out() -> None:
    """TX: the same descriptor; CONTINUED (XDP_PKT_CONTD) on all but the last piece of a frame."""
    with PlainXsk(pieces=2) as ring:
        assert ring.send([bytes(60), bytes(2049)]) == 2
        entries = bytes(ring.tx.memory.view[-64 * 16 :][:48])
        first = 64 * 2048
        assert [struct.unpack_from("<QII", entries, k) for k in (0, 16, 32)] == [
            (first, 60, 0), (first + 2048, 2048, 1), (first + 4096, 1, 0)]
        assert ring.tx.word(ring.tx.ring.producer).value == 3
