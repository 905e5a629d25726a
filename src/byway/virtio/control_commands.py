# SPDX-License-Identifier: Apache-2.0
"""The commands of the virtio-net control queue: one table of numbers, layouts and features.

    data = encode(Command.VQ_PAIRS, 4)           # b"\\x04\\x00\\x04\\x00"
    command, value = decode(data)

Used by control_queue.py. VIRTIO 1.2, 5.1.6.5 and below. All numbers are little-endian (a legacy
guest of another byte order is not served). A layout knows what bytes may be; whether a device has
so many queues or so long a key is for control_queue.py to say.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from byway.virtio.features import Feature

OK, ERR = 0, 1
MIN_PAIRS, MAX_PAIRS = 1, 0x8000
VLANS = 4096
MAC = 6


class ControlError(ValueError):
    """Bytes that are no command, or a value that no command can carry."""


@dataclass(frozen=True)
class MacTables:
    """The addresses to receive (5.1.6.5.2), 6 bytes each."""

    unicast: tuple[bytes, ...] = ()
    multicast: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class HashConfig:
    """struct virtio_net_hash_config (5.1.6.5.6.4): which hashes are calculated, by which key."""

    types: int
    key: bytes


@dataclass(frozen=True)
class RssConfig:
    """struct virtio_net_rss_config (5.1.6.5.7.1). Queues are numbered from 0 for receiveq1."""

    types: int
    table: tuple[int, ...]
    unclassified: int
    tx_queues: int
    key: bytes


# ---------------------------------------------------------------- layouts
@dataclass(frozen=True)
class Layout:
    """How a command's data is written and read; both raise ControlError for what cannot be."""

    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]


class _Reader:
    """Takes what it is asked for from the front of some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def take(self, n: int) -> bytes:
        """The next n bytes."""
        if n > len(self._data):
            raise ControlError(f"{len(self._data)} bytes where {n} belong")
        taken, self._data = self._data[:n], self._data[n:]
        return taken

    def number(self, n: int) -> int:
        """The next n bytes as a number."""
        return int.from_bytes(self.take(n), "little")

    def end(self) -> None:
        """Nothing may be left."""
        if self._data:
            raise ControlError(f"{len(self._data)} bytes too many")


def _whole(read: Callable[[_Reader], Any]) -> Callable[[bytes], Any]:
    """A reader of all of a command's data."""

    def read_all(data: bytes) -> Any:
        reader = _Reader(data)
        value = read(reader)
        reader.end()
        return value

    return read_all


def _number(octets: int, least: int, most: int) -> Layout:
    """One number with bounds."""

    def bounded(value: int) -> int:
        if not least <= value <= most:
            raise ControlError(f"{value} is not in {least}..{most}")
        return value

    return Layout(lambda value: bounded(int(value)).to_bytes(octets, "little"),
                  _whole(lambda reader: bounded(reader.number(octets))))


def _mac(value: bytes) -> bytes:
    if len(value) != MAC:
        raise ControlError(f"a MAC address of {len(value)} bytes")
    return value


def _write_tables(value: MacTables) -> bytes:
    return b"".join(struct.pack("<I", len(table)) + b"".join(map(_mac, table))
                    for table in (value.unicast, value.multicast))


def _read_table(reader: _Reader) -> tuple[bytes, ...]:
    data = reader.take(MAC * reader.number(4))
    return tuple(data[k : k + MAC] for k in range(0, len(data), MAC))


def _key(value: bytes) -> bytes:
    if len(value) > 255:
        raise ControlError(f"a key of {len(value)} bytes")
    return bytes([len(value)]) + value


def _write_hash(value: HashConfig) -> bytes:
    return struct.pack("<I8x", value.types) + _key(value.key)


def _read_hash(reader: _Reader) -> HashConfig:
    types = reader.number(4)
    if any(reader.take(8)):
        raise ControlError("reserved bytes that are not zero")
    return HashConfig(types, reader.take(reader.number(1)))


def _table_length(n: int) -> int:
    if not 1 <= n <= 1 << 16 or n & (n - 1):
        raise ControlError(f"an indirection table of {n} entries; only powers of two are possible")
    return n


def _write_rss(value: RssConfig) -> bytes:
    queues = (value.unclassified, *value.table, value.tx_queues)
    if not all(0 <= queue < 1 << 16 for queue in queues):
        raise ControlError(f"queue numbers {queues}")
    return struct.pack("<IH", value.types, _table_length(len(value.table)) - 1) \
        + struct.pack(f"<{len(queues)}H", *queues) + _key(value.key)


def _read_rss(reader: _Reader) -> RssConfig:
    types = reader.number(4)
    n = _table_length(reader.number(2) + 1)
    unclassified = reader.number(2)
    table = struct.unpack(f"<{n}H", reader.take(2 * n))
    tx_queues = reader.number(2)
    return RssConfig(types, table, unclassified, tx_queues, reader.take(reader.number(1)))


NOTHING = Layout(lambda value: b"", _whole(lambda reader: None))
SWITCH = Layout(lambda value: b"\1" if value else b"\0",
                lambda data: bool(_number(1, 0, 1).read(data)))
VLAN_ID = _number(2, 0, VLANS - 1)
PAIRS = _number(2, MIN_PAIRS, MAX_PAIRS)
OFFLOADS = _number(8, 0, (1 << 64) - 1)
ADDRESS = Layout(_mac, _whole(lambda reader: reader.take(MAC)))
ADDRESSES = Layout(_write_tables, _whole(
    lambda reader: MacTables(_read_table(reader), _read_table(reader))))
HASH = Layout(_write_hash, _whole(_read_hash))
RSS = Layout(_write_rss, _whole(_read_rss))


# ---------------------------------------------------------------- the table
class Command(Enum):
    """(class, command, the feature that it needs, layout of its data)."""

    PROMISC = (0, 0, Feature.CTRL_RX, SWITCH)  # 5.1.6.5.1
    ALLMULTI = (0, 1, Feature.CTRL_RX, SWITCH)
    ALLUNI = (0, 2, Feature.CTRL_RX_EXTRA, SWITCH)
    NOMULTI = (0, 3, Feature.CTRL_RX_EXTRA, SWITCH)
    NOUNI = (0, 4, Feature.CTRL_RX_EXTRA, SWITCH)
    NOBCAST = (0, 5, Feature.CTRL_RX_EXTRA, SWITCH)
    MAC_TABLE = (1, 0, Feature.CTRL_RX, ADDRESSES)  # 5.1.6.5.2
    MAC_ADDRESS = (1, 1, Feature.CTRL_MAC_ADDR, ADDRESS)
    VLAN_ADD = (2, 0, Feature.CTRL_VLAN, VLAN_ID)  # 5.1.6.5.3
    VLAN_DEL = (2, 1, Feature.CTRL_VLAN, VLAN_ID)
    ANNOUNCE_ACK = (3, 0, Feature.GUEST_ANNOUNCE, NOTHING)  # 5.1.6.5.4
    VQ_PAIRS = (4, 0, Feature.MQ, PAIRS)  # 5.1.6.5.6
    RSS_CONFIG = (4, 1, Feature.RSS, RSS)  # 5.1.6.5.7.1
    HASH_CONFIG = (4, 2, Feature.HASH_REPORT, HASH)  # 5.1.6.5.6.4
    GUEST_OFFLOADS = (5, 0, Feature.CTRL_GUEST_OFFLOADS, OFFLOADS)  # 5.1.6.5.8.1

    def __init__(self, kind: int, number: int, feature: Feature, layout: Layout) -> None:
        self.kind, self.number, self.feature, self.layout = kind, number, feature, layout


_BY_NUMBER = {(command.kind, command.number): command for command in Command}


def encode(command: Command, value: Any = None) -> bytes:
    """The readable part of a command's buffer (ControlError: no such value)."""
    try:
        data = command.layout.write(value)
    except (struct.error, OverflowError, TypeError, AttributeError) as error:
        raise ControlError(f"{command.name}: {value!r}: {error}") from error
    return bytes([command.kind, command.number]) + data


def decode(data: bytes) -> tuple[Command, Any]:
    """The command in the readable part of a buffer (ControlError: there is none)."""
    if len(data) < 2:
        raise ControlError(f"{len(data)} bytes are no command")
    command = _BY_NUMBER.get((data[0], data[1]))
    if command is None:
        raise ControlError(f"class {data[0]} has no command {data[1]}")
    return command, command.layout.read(data[2:])
