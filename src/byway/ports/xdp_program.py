# SPDX-License-Identifier: Apache-2.0
"""The program that hands an interface's frames to our sockets; made here, attached, explained.

Used by af_xdp.py; uses bpf.py. Source: RFC 9669 (the instructions), Linux'
include/uapi/linux/bpf.h (struct xdp_md, bpf_redirect_map) and Documentation/networking/af_xdp.rst.

A program of six instructions says of each frame: "to the socket that the map names for this frame's
queue, and where it names none, on to the kernel's own stack". The map (XSKMAP) has an entry for
each of the port's queues.

The program is attached in the driver ("native": it sees a frame before the kernel spends anything
on it), or, where the driver cannot, behind it ("skb"). It is attached by a link: when the last file
of the link is closed, by us or because the process was killed, it is gone.
"""

import errno
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from byway.ports.bpf import (
    DRV_MODE,
    HAS_FRAGS,
    SKB_MODE,
    XSKMAP,
    BpfError,
    attach_xdp,
    create_map,
    load_program,
    program_info,
    update_map,
)
from byway.ports.port import PortError

NAME = "byway_xsk"  # of map and program, at most 15 bytes
PASS = 2  # enum xdp_action: on to the kernel's stack
RX_QUEUE_INDEX = 16  # offset in struct xdp_md
REDIRECT_MAP = 51  # enum bpf_func_id
# Opcodes: load 32 bits; load 64 bits over two slots; register := number; call; return.
_LDXW, _LDDW, _MOV, _CALL, _EXIT = 0x61, 0x18, 0xB7, 0x85, 0x95
_R0, _R1, _R2, _R3 = range(4)
_MAP_FD = 1  # BPF_PSEUDO_MAP_FD, in the place of the source register: the number is a map's file
_MODES = {"native": DRV_MODE, "skb": SKB_MODE}


def _instruction(opcode: int, to: int = 0, source: int = 0, offset: int = 0, n: int = 0) -> bytes:
    return struct.pack("<BBhi", opcode, to | source << 4, offset, n)


def redirect_program(map_file: int) -> bytes:
    """The program: bpf_redirect_map(map, context.rx_queue_index, XDP_PASS).

    It gets the context, a struct xdp_md, in r1, and answers what is to be done in r0, where a call
    leaves its result as well. The third argument is the answer where the map has no socket.
    """
    return b"".join((
        _instruction(_LDXW, _R2, _R1, RX_QUEUE_INDEX),  # r2 = context.rx_queue_index
        _instruction(_LDDW, _R1, _MAP_FD, 0, map_file),  # r1 = the map: low half, ...
        _instruction(0),  # ... and the slot of the high half, which the kernel fills
        _instruction(_MOV, _R3, n=PASS),  # r3 = XDP_PASS
        _instruction(_CALL, n=REDIRECT_MAP),  # r0 = bpf_redirect_map(r1, r2, r3)
        _instruction(_EXIT),  # return r0
    ))


class XdpProgram:
    """Map, program and link of one interface. To be made in the interface's namespace.

    ``mode``: which of native and skb it became. ``frags``: frames may come in several pieces.
    """

    def __init__(self, ifname: str, ifindex: int, queues: int, modes: Sequence[str],
                 frags: bool) -> None:
        self.mode = ""
        self._files: list[int] = []
        try:
            self._map = self._keep(create_map(XSKMAP, 4, 4, queues))
            program = self._keep(
                load_program(redirect_program(self._map), NAME, HAS_FRAGS if frags else 0))
        except BpfError as error:
            self.close()
            raise _not_loaded(error) from None
        try:
            self._attach(ifname, ifindex, program, modes)
        except PortError:
            self.close()
            raise

    def _keep(self, file: int) -> int:
        self._files.append(file)
        return file

    def _attach(self, ifname: str, ifindex: int, program: int, modes: Sequence[str]) -> None:
        for mode in modes:
            try:
                self._keep(attach_xdp(ifindex, program, _MODES[mode]))
            except BpfError as error:
                if error.errno in (errno.EBUSY, errno.EEXIST):
                    raise _occupied(ifname, ifindex) from None
                if error.errno == errno.EPERM:
                    raise _not_loaded(error) from None
                if mode == modes[-1]:
                    raise _not_attached(ifname, mode, error) from None
            else:
                self.mode = mode
                return

    def serve(self, queue: int, socket: int) -> None:
        """From now on frames of ``queue`` come in at a socket (OSError: its file is none that is
        bound to this queue)."""
        update_map(self._map, struct.pack("=I", queue), struct.pack("=I", socket))

    def close(self) -> None:
        """Detach. Idempotent."""
        while self._files:
            os.close(self._files.pop())


# ---------------------------------------------------------------- what can go wrong
def _not_loaded(error: BpfError) -> PortError:
    if error.errno == errno.EPERM:
        return PortError("kind", "the kernel lets this process load no XDP program",
                         "give byway CAP_BPF and CAP_NET_ADMIN, or be root")
    said = f": {error.log.splitlines()[-1]}" if error.log else ""
    return PortError("kind", f"the kernel refused the XDP program ({error.strerror}){said}",
                     "see `byway doctor`; AF_XDP ports need Linux 5.9 or newer")


def _not_attached(ifname: str, mode: str, error: BpfError) -> PortError:
    fix = 'write mode = "auto", or "skb"' if mode == "native" else "use an af-packet port"
    if mode == "native" and error.errno == errno.ERANGE:
        fix = "lower the interface's MTU, or " + fix
    return PortError("mode", f'"{ifname}" takes no XDP program in mode {mode} ({error.strerror})',
                     fix)


def _occupied(ifname: str, ifindex: int) -> PortError:
    number = attached_program(ifindex)
    by = f": {owner(number)}" if number else ""
    return PortError("ifname", f'"{ifname}" has an XDP program already{by}',
                     "end that program, or `ip link set dev "
                     f"{ifname} xdp off` (xdpgeneric off) where it was attached without a link")


def attached_program(ifindex: int) -> int:
    """The number of the program at an interface of this thread's namespace, 0: none."""
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        for link in netlink.get_links(ifindex):
            xdp = link.get_attr("IFLA_XDP")
            # One mode: PROG_ID; several: one of them each.
            names = ("IFLA_XDP_PROG_ID", "IFLA_XDP_DRV_PROG_ID", "IFLA_XDP_SKB_PROG_ID",
                     "IFLA_XDP_HW_PROG_ID")
            for name in names:
                if xdp and (number := xdp.get_attr(name)):
                    return int(number)
    return 0


def owner(number: int) -> str:
    """Whose program that is, as well as can be found out: its name, and processes that hold it."""
    said = f"program {number}"
    with suppress(BpfError):  # without CAP_SYS_ADMIN, or it has just gone
        found = program_info(number)
        said += f' "{found.name}" of user {found.uid}' if found.name else f" of user {found.uid}"
    holders = sorted(set(_holders(number)))
    return said + (f", held by {', '.join(holders)}" if holders else "")


def _holders(number: int) -> Iterator[str]:
    """Processes with a file of the program or of a link to it (proc(5), fdinfo)."""
    wanted = f"prog_id:\t{number}\n"
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is not ours to look at
            for info in (process / "fdinfo").iterdir():
                if wanted in info.read_text():
                    yield f"{(process / 'comm').read_text().strip()} (process {process.name})"
                    break
