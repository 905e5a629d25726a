# SPDX-License-Identifier: Apache-2.0
"""AF_PACKET's layouts byte for byte: include/uapi/linux/if_packet.h, if_ether.h, virtio_net.h,
linux/socket.h on x86-64.

The structures are written out in the header's own words; where the kernel's headers and a compiler
are installed, the compiler is asked too.
"""

import ctypes
import subprocess
from pathlib import Path

from byway.packet.batch import ROWS
from byway.packet.offload import NEEDS_CSUM
from byway.ports import af_packet_kernels as kernels
from byway.ports import datagrams, packet_socket
from byway.testing import packet_ring
from tests.peers import find_program, need_peer

U8, U16, U32, U64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64


class Tpacket2Hdr(ctypes.Structure):
    """struct tpacket2_hdr."""

    _fields_ = (
        ("tp_status", U32), ("tp_len", U32), ("tp_snaplen", U32), ("tp_mac", U16), ("tp_net", U16),
        ("tp_sec", U32), ("tp_nsec", U32), ("tp_vlan_tci", U16), ("tp_vlan_tpid", U16),
        ("tp_padding", U8 * 4))


class TpacketAuxdata(ctypes.Structure):
    """struct tpacket_auxdata."""

    _fields_ = (
        ("tp_status", U32), ("tp_len", U32), ("tp_snaplen", U32), ("tp_mac", U16), ("tp_net", U16),
        ("tp_vlan_tci", U16), ("tp_vlan_tpid", U16))


class Msghdr(ctypes.Structure):
    """struct msghdr, as the first part of struct mmsghdr."""

    _fields_ = (
        ("msg_name", U64), ("msg_namelen", U32), ("msg_iov", U64), ("msg_iovlen", U64),
        ("msg_control", U64), ("msg_controllen", U64), ("msg_flags", U32))


class Mmsghdr(ctypes.Structure):
    """struct mmsghdr."""

    _fields_ = (("msg_hdr", Msghdr), ("msg_len", U32))


SOCKADDR_LL, CMSGHDR = 20, 16
SIZES = {
    "sizeof(struct tpacket2_hdr)": ctypes.sizeof(Tpacket2Hdr),
    "TPACKET2_HDRLEN": kernels.SLOT_HEADER,
    "sizeof(struct tpacket_auxdata)": kernels.AUX_END - CMSGHDR,
    "sizeof(struct sockaddr_ll)": SOCKADDR_LL,
    "sizeof(struct cmsghdr)": CMSGHDR,
    "sizeof(struct mmsghdr)": datagrams.MESSAGE,
    "sizeof(struct virtio_net_hdr)": kernels.HEADER,
    "sizeof(struct tpacket_stats)": packet_socket.STATISTICS.size,
    "offsetof(struct tpacket2_hdr, tp_status)": kernels.STATUS,
    "offsetof(struct tpacket2_hdr, tp_len)": kernels.LENGTH,
    "offsetof(struct tpacket2_hdr, tp_snaplen)": kernels.SNAPLEN,
    "offsetof(struct tpacket2_hdr, tp_mac)": kernels.MAC,
    "offsetof(struct tpacket2_hdr, tp_vlan_tci)": kernels.TCI,
    "offsetof(struct tpacket2_hdr, tp_vlan_tpid)": kernels.TPID,
    "offsetof(struct tpacket_auxdata, tp_status) + sizeof(struct cmsghdr)": kernels.AUX_STATUS,
    "offsetof(struct tpacket_auxdata, tp_vlan_tci) + sizeof(struct cmsghdr)": kernels.AUX_TCI,
    "offsetof(struct tpacket_auxdata, tp_vlan_tpid) + sizeof(struct cmsghdr)": kernels.AUX_TPID,
    "offsetof(struct mmsghdr, msg_hdr.msg_iov)": datagrams.IOV,
    "offsetof(struct mmsghdr, msg_hdr.msg_iovlen)": datagrams.IOV_COUNT,
    "offsetof(struct mmsghdr, msg_hdr.msg_control)": datagrams.CONTROL,
    "offsetof(struct mmsghdr, msg_hdr.msg_controllen)": datagrams.CONTROL_LENGTH,
    "offsetof(struct mmsghdr, msg_hdr.msg_flags)": datagrams.FLAGS,
    "offsetof(struct mmsghdr, msg_len)": datagrams.LENGTH,
    "TP_STATUS_KERNEL": kernels.KERNEL,
    "TP_STATUS_USER": kernels.USER,
    "TP_STATUS_COPY": kernels.COPY,
    "TP_STATUS_VLAN_VALID": kernels.VLAN_VALID,
    "TP_STATUS_VLAN_TPID_VALID": kernels.TPID_VALID,
    "SOL_PACKET": packet_socket.SOL_PACKET,
    "PACKET_ADD_MEMBERSHIP": packet_socket.PACKET_ADD_MEMBERSHIP,
    "PACKET_RX_RING": packet_socket.PACKET_RX_RING,
    "PACKET_STATISTICS": packet_socket.PACKET_STATISTICS,
    "PACKET_COPY_THRESH": packet_socket.PACKET_COPY_THRESH,
    "PACKET_AUXDATA": packet_socket.PACKET_AUXDATA,
    "PACKET_VERSION": packet_socket.PACKET_VERSION,
    "PACKET_VNET_HDR": packet_socket.PACKET_VNET_HDR,
    "PACKET_FANOUT": packet_socket.PACKET_FANOUT,
    "PACKET_QDISC_BYPASS": packet_socket.PACKET_QDISC_BYPASS,
    "PACKET_IGNORE_OUTGOING": packet_socket.PACKET_IGNORE_OUTGOING,
    "PACKET_MR_PROMISC": packet_socket.PACKET_MR_PROMISC,
    "PACKET_FANOUT_HASH": packet_socket.FANOUT_HASH,
    "PACKET_FANOUT_FLAG_UNIQUEID": packet_socket.FANOUT_UNIQUE_ID,
    "TPACKET_V2": packet_socket.TPACKET_V2,
    "ETH_P_ALL": packet_socket.ETH_P_ALL,
    "ETH_P_8021Q": kernels.TPID_C,
    "VIRTIO_NET_HDR_F_NEEDS_CSUM": NEEDS_CSUM,
    "MSG_TRUNC": datagrams.MSG_TRUNC,
    "MSG_DONTWAIT": datagrams.MSG_DONTWAIT,
    "__NR_recvmsg": datagrams.SYS_RECVMSG,
    "__NR_recvmmsg": datagrams.SYS_RECVMMSG,
    "__NR_sendmmsg": datagrams.SYS_SENDMMSG,
}
PROGRAM = """
#define _GNU_SOURCE
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#ifndef SOL_PACKET
#define SOL_PACKET 263
#endif
int main(void) {{ {lines} return 0; }}
"""


def test_the_slot_header() -> None:
    """TPACKET2_HDRLEN: the header, aligned to 16 bytes, and a sockaddr_ll."""
    h = Tpacket2Hdr
    assert ctypes.sizeof(h) == packet_ring.TPACKET2_HDR.size == 32
    assert (h.tp_status.offset, h.tp_len.offset, h.tp_snaplen.offset, h.tp_mac.offset,
            h.tp_vlan_tci.offset, h.tp_vlan_tpid.offset) == (
        kernels.STATUS, kernels.LENGTH, kernels.SNAPLEN, kernels.MAC, kernels.TCI, kernels.TPID)
    assert (ctypes.sizeof(h) + 15 & ~15) + SOCKADDR_LL == kernels.SLOT_HEADER


def test_what_comes_beside_a_queued_frame() -> None:
    """PACKET_AUXDATA: a struct tpacket_auxdata behind a struct cmsghdr."""
    a = TpacketAuxdata
    places = (a.tp_status.offset, a.tp_vlan_tci.offset, a.tp_vlan_tpid.offset, ctypes.sizeof(a))
    assert tuple(CMSGHDR + at for at in places) == (
        kernels.AUX_STATUS, kernels.AUX_TCI, kernels.AUX_TPID, kernels.AUX_END)


def test_messages() -> None:
    m = Msghdr
    assert (m.msg_iov.offset, m.msg_iovlen.offset, m.msg_control.offset, m.msg_controllen.offset,
            m.msg_flags.offset) == (
        datagrams.IOV, datagrams.IOV_COUNT, datagrams.CONTROL, datagrams.CONTROL_LENGTH,
        datagrams.FLAGS)
    assert (Mmsghdr.msg_len.offset, ctypes.sizeof(Mmsghdr)) == (
        datagrams.LENGTH, datagrams.MESSAGE)


def test_a_ring_is_what_the_kernel_accepts() -> None:
    """packet_mmap.rst: blocks of whole pages, slots aligned to 16 that fill them exactly."""
    for longest in (82, 1522, 4000, 9230):
        size, slots = packet_socket.ring_shape(longest)
        block = max(packet_socket.BLOCK, size)
        assert block % 4096 == size % 16 == block % size == size * slots % block == 0
        assert size >= longest + kernels.SLOT_HEADER + kernels.HEADER
        assert slots > ROWS


def test_the_kernels_headers_say_the_same(tmp_path: Path) -> None:
    """The numbers above by the compiler, from the headers that are installed."""
    compiler = find_program("cc")
    if not Path("/usr/include/linux/if_packet.h").exists():
        need_peer("linux-libc-dev", "no headers of the kernel")
    lines = " ".join(f'printf("%ld\\n", (long)({name}));' for name in SIZES)
    source = tmp_path / "sizes.c"
    source.write_text(PROGRAM.format(lines=lines))
    subprocess.run([compiler, "-o", tmp_path / "sizes", source], check=True)
    said = subprocess.run([tmp_path / "sizes"], check=True, capture_output=True, text=True)
    assert dict(zip(SIZES, map(int, said.stdout.split()), strict=True)) == SIZES
