# SPDX-License-Identifier: Apache-2.0
"""What an interface does with frames by itself (its offloads), and how many queues it has.

Used by far_end.py and af_xdp.py. Source: Linux, include/uapi/linux/ethtool.h (SIOCETHTOOL), and
net/ethtool/common.c for the names of features, which `ethtool -k` shows.

An interface is named in the network namespace of the thread that asks.
"""

import array
import errno
import fcntl
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

_SIOCETHTOOL = 0x8946
_GSTRINGS, _GSSET_INFO, _GFEATURES, _SFEATURES, _GCHANNELS = 0x1B, 0x37, 0x3A, 0x3B, 0x3C
_SS_FEATURES, _STRING = 4, 32  # enum ethtool_stringset; ETH_GSTRING_LEN
_SOL_PACKET, _ADD_MEMBERSHIP, _MR_PROMISC = 263, 1, 1
_MREQ = struct.Struct("=iHH8s")  # struct packet_mreq: interface, type, address
_IFREQ = struct.Struct("=16sQ16x")  # name, address of the command (netdevice(7))
_BLOCK = struct.Struct("=IIII")  # available, requested, active, never changed: 32 features each
_WANTED = struct.Struct("=II")  # valid, requested
_CHANNELS = struct.Struct("=9I")  # command; most rx, tx, other, combined; and how many there are


@dataclass(frozen=True)
class Feature:
    """``active``: it is done now; ``wanted``: somebody asked for it; ``changeable``: or fixed."""

    active: bool
    wanted: bool
    changeable: bool


def _ask(ifname: str, command: "array.array[int]") -> None:
    """Let the kernel fill in ``command`` (OSError: no such interface, not known, not allowed)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = _IFREQ.pack(ifname.encode(), command.buffer_info()[0])
        fcntl.ioctl(any_socket, _SIOCETHTOOL, request)


def _names(ifname: str) -> list[str]:
    """The names of all features, by number."""
    info = array.array("B", struct.pack("=IIQI", _GSSET_INFO, 0, 1 << _SS_FEATURES, 0))
    _ask(ifname, info)
    count = struct.unpack_from("=I", info, 16)[0]
    table = array.array("B", struct.pack("=III", _GSTRINGS, _SS_FEATURES, count)
                        + bytes(_STRING * count))
    _ask(ifname, table)
    text = table.tobytes()[12:]
    return [text[k : k + _STRING].partition(b"\0")[0].decode()
            for k in range(0, len(text), _STRING)]


def features(ifname: str) -> dict[str, Feature]:
    """The features of an interface by name."""
    names = _names(ifname)
    blocks = -(-len(names) // 32)
    command = array.array("B", struct.pack("=II", _GFEATURES, blocks)
                          + bytes(_BLOCK.size * blocks))
    _ask(ifname, command)
    found = {}
    for number, name in enumerate(names):
        available, requested, active, never = _BLOCK.unpack_from(
            command, 8 + _BLOCK.size * (number // 32))
        bit = 1 << number % 32
        found[name] = Feature(bool(active & bit), bool(requested & bit),
                              bool(available & bit) and not never & bit)
    return {name: feature for name, feature in found.items() if name}


def set_features(ifname: str, names: Iterable[str], on: bool) -> None:
    """Ask for features, or ask for them no more; unknown names are left out (a feature of another
    kernel). OSError EPERM: without CAP_NET_ADMIN."""
    known = _names(ifname)
    blocks = [[0, 0] for _ in range(-(-len(known) // 32))]
    for name in names:
        if name in known:
            number = known.index(name)
            blocks[number // 32][0] |= 1 << number % 32
            blocks[number // 32][1] |= int(on) << number % 32
    _ask(ifname, array.array("B", struct.pack("=II", _SFEATURES, len(blocks))
                             + b"".join(_WANTED.pack(*block) for block in blocks)))


def promiscuous(ifindex: int) -> socket.socket:
    """Have an interface receive frames for all addresses, not for its own only, as long as the
    returned socket is open (packet(7), PACKET_MR_PROMISC). OSError EPERM: without CAP_NET_RAW."""
    made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)  # protocol 0: it receives nothing
    try:
        made.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, _MREQ.pack(ifindex, _MR_PROMISC, 0, b""))
    except OSError:
        made.close()
        raise
    return made


def receive_queues(ifname: str) -> int | None:
    """How many queues frames come in on; None where the driver does not tell."""
    command = array.array("B", struct.pack("=I", _GCHANNELS) + bytes(_CHANNELS.size - 4))
    try:
        _ask(ifname, command)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return None
    _, _, _, _, _, rx, _, _, combined = _CHANNELS.unpack_from(command)
    return int(rx + combined) or None
